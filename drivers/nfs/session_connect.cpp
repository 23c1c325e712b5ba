// How a session comes up: a context, the mount, the file; and what else is done in a folder.
#include "drivers/nfs/callbacks.hpp"
#include "drivers/nfs/status.hpp"
#include "drivers/support/host_lookup.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>

namespace diskferry::nfs {
namespace {

/// Of a new disk: for its owner alone, as the file driver makes them.
constexpr int new_file_mode = 0600;
constexpr std::size_t verifier_bytes = 8;              // NFS4_VERIFIER_SIZE
constexpr std::uint32_t transfer_bytes_max = 1 << 20;  // libnfs's own bound (NFS_MAX_XFER_SIZE)

/// libnfs takes these from a URL only. Nothing of the operator's but numbers is in it.
std::string settings_url(const Endpoint& endpoint) {
  std::string url = fmt::format(
      "nfs://server/folder/file?version={}&autoreconnect=0&readahead=0&dircache=0&"
      "auto-traverse-mounts=1",
      endpoint.version);
  if (endpoint.nfs_port != 0) url += fmt::format("&nfsport={}", endpoint.nfs_port);
  if (endpoint.mount_port != 0) url += fmt::format("&mountport={}", endpoint.mount_port);
  if (endpoint.uid) url += fmt::format("&uid={}", *endpoint.uid);
  if (endpoint.gid) url += fmt::format("&gid={}", *endpoint.gid);
  return url;
}

/// Of a request's size as the server has it; by NFSv4 libnfs does not ask it and says 0. Answers that are
/// shorter than what was asked for are gone on from.
std::uint32_t usable(std::uint64_t bytes_max) {
  return bytes_max == 0 ? transfer_bytes_max
                        : static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes_max, transfer_bytes_max));
}

/// Not that of any other context, of this process or another; its end is as unique.
std::string client_name() {
  std::array<unsigned char, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) < 0) bytes = {};
  std::string name = "diskferry-";
  for (const unsigned char byte : bytes) name += fmt::format("{:02x}", byte);
  return name;
}

}  // namespace

Result<void> NfsSession::make_context() {
  drop_context();
  context_ = nfs_init_context();
  if (context_ == nullptr)
    return unexpected(fail(ErrorKind::too_large, "open", endpoint_.name).why("out of memory"));
  nfs_url* const url = nfs_parse_url_full(context_, settings_url(endpoint_).c_str());
  if (url == nullptr)
    return unexpected(
        fail(ErrorKind::unsupported, "open", endpoint_.name)
            .why(fmt::format("libnfs does not take the settings: {}", nfs_get_error(context_))));
  nfs_destroy_url(url);
  nfs_set_autoreconnect(context_, 0);
  if (endpoint_.version == 4) {
    // A server of NFSv4 has one state for each name of a client, and each context is one.
    const std::string name = client_name();
    nfs4_set_client_name(context_, name.c_str());
    nfs4_set_verifier(context_, name.data() + name.size() - verifier_bytes);
  }
  return {};
}

Task<Result<std::shared_ptr<NfsSession::Call>>> NfsSession::call(std::string operation, Start start) {
  const auto call = std::make_shared<Call>(*this);
  auto owned = std::make_unique<std::shared_ptr<Call>>(call);
  if (context_ == nullptr) co_return unexpected(lost(std::move(operation)));
  if (start(context_, owned.get()) < 0)
    co_return unexpected(fail(ErrorKind::gone, std::move(operation), endpoint_.name)
                             .why(library_text("libnfs does not take the request")));
  std::ignore = owned.release();  // the callback's
  update_interest();
  std::unique_lock lock(call->guard);
  while (!call->is_done) {
    if (!co_await call->waiting.wait(lock))
      co_return unexpected(cancelled_error(std::move(operation), endpoint_.name));
    lock.lock();
  }
  lock.unlock();
  if (call->result < 0) {
    Error error = library_error(-call->result, std::move(operation), endpoint_.name, call->text);
    co_return unexpected(std::move(error));
  }
  co_return call;
}

Task<Result<void>> NfsSession::mount_folder() {
  // First without the library, which would look the name up itself before it returns.
  DISKFERRY_CO_TRY(const auto addresses, co_await look_up_host(endpoint_.host));
  for (std::size_t i = 0;; ++i) {
    DISKFERRY_CO_CHECK(make_context());
    auto mounted = co_await call("mount", [this, &address = addresses[i]](nfs_context* context, void* owned) {
      return nfs_mount_async(context, address.c_str(), endpoint_.folder.c_str(), Callbacks::done, owned);
    });
    if (mounted) co_return Result<void>{};
    const ErrorKind kind = mounted.error().kind();
    if (kind == ErrorKind::permission || kind == ErrorKind::not_found)
      co_return unexpected(
          std::move(mounted)
              .error()
              .why(fmt::format("the server does not export {} to this client", printable(endpoint_.folder)))
              .remedy("check the folder's name, and the clients that the server lets in (showmount -e)"));
    // One that is not reached at this address may be at the next.
    if (kind != ErrorKind::gone || i + 1 == addresses.size())
      co_return unexpected(std::move(mounted).error());
  }
}

Task<Result<void>> NfsSession::mount() {
  auto mounted = co_await with_deadline(clock_, endpoint_.connect_limit, "mount", mount_folder());
  if (mounted) co_return mounted;
  drop_context();
  co_return unexpected(explained(std::move(mounted).error()));
}

Task<Result<FileFacts>> NfsSession::open_file(Purpose purpose) {
  const int flags = purpose == Purpose::write ? O_RDWR : O_RDONLY;
  DISKFERRY_CO_CHECK(co_await call("open", [this, flags](nfs_context* context, void* owned) {
    return nfs_open_async(context, endpoint_.file.c_str(), flags, Callbacks::opened, owned);
  }));
  // Here and below: a server that goes away just after its answer takes the context along.
  if (context_ == nullptr) co_return unexpected(lost("open"));
  DISKFERRY_CO_TRY(const auto looked, co_await call("look at", [this](nfs_context* context, void* owned) {
                     return nfs_fstat64_async(context, file_, Callbacks::looked, owned);
                   }));
  if (context_ == nullptr) co_return unexpected(lost("look at"));
  const nfs_stat_64& now = looked->facts;
  if (!S_ISREG(now.nfs_mode))
    co_return unexpected(
        fail(ErrorKind::invalid_argument, "open", endpoint_.name).why("it is no regular file"));
  FileFacts facts{.number = now.nfs_ino,
                  .size_bytes = now.nfs_size,
                  .used_bytes = now.nfs_used,
                  .read_bytes_max = usable(nfs_get_readmax(context_)),
                  .write_bytes_max = usable(nfs_get_writemax(context_))};
  if (endpoint_.version == 3) {
    DISKFERRY_CO_TRY(const nfs_fh3 handle, handle_of(file_));
    facts.handle.assign(handle.data.data_val, handle.data.data_len);
  }
  co_return facts;
}

Task<Result<FileFacts>> NfsSession::connect() {
  const auto both = [](NfsSession& self) -> Task<Result<FileFacts>> {
    DISKFERRY_CO_CHECK(co_await self.mount_folder());
    co_return co_await self.open_file(self.purpose_);
  };
  auto facts = co_await with_deadline<FileFacts>(clock_, endpoint_.connect_limit, "connect", both(*this));
  if (facts) co_return facts;
  drop_context();
  co_return unexpected(explained(std::move(facts).error()));
}

Error NfsSession::explained(Error error) const {
  if (error.kind() != ErrorKind::timed_out)
    return error.object().empty() ? std::move(error).object(endpoint_.name) : error;
  return std::move(error)
      .object(endpoint_.name)
      .why(fmt::format("no answer within {} s",
                       std::chrono::duration<double>(endpoint_.connect_limit).count()))
      .remedy(
          "check that the server is up, and its ports: nfsport and mountport where it has no port mapper");
}

Task<Result<void>> NfsSession::create(std::uint64_t size_bytes, bool may_exist) {
  const int flags = O_CREAT | O_RDWR | (may_exist ? O_TRUNC : O_EXCL);
  DISKFERRY_CO_CHECK(co_await call("create", [this, flags](nfs_context* context, void* owned) {
    return nfs_create_async(context, endpoint_.file.c_str(), flags, new_file_mode, Callbacks::opened, owned);
  }));
  if (context_ == nullptr) co_return unexpected(lost("create"));
  auto sized = co_await call("create", [this, size_bytes](nfs_context* context, void* owned) {
    return nfs_ftruncate_async(context, file_, size_bytes, Callbacks::done, owned);
  });
  if (sized) co_return Result<void>{};
  if (!may_exist) (void)co_await unlink();
  co_return unexpected(std::move(sized).error());
}

Task<Result<void>> NfsSession::unlink() {
  auto done = co_await call("remove", [this](nfs_context* context, void* owned) {
    return nfs_unlink_async(context, endpoint_.file.c_str(), Callbacks::done, owned);
  });
  if (!done) co_return unexpected(std::move(done).error());
  co_return Result<void>{};
}

}  // namespace diskferry::nfs
