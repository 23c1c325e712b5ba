#include "drivers/nfs/nfs_driver.hpp"

#include "diskferry/units.hpp"
#include "drivers/nfs/storage.hpp"
#include "drivers/nfs/zero_probe.hpp"
#include "drivers/support/run_on.hpp"

#include <algorithm>

namespace diskferry {
namespace nfs {
namespace {

/// A file that has this size and no block is all holes; smaller ones some file systems keep in the inode.
constexpr std::uint64_t holes_bytes_min = 64 * kib;
/// libnfs's bound (NFS_MAX_XFER_SIZE). Of a server that takes less at once the parts are sent together, which
/// the checking layer would do one after the other.
constexpr std::uint32_t request_bytes_max = 1 * mib;
constexpr unsigned parallel_per_connection = 8;

class NfsDevice final : public BlockDevice {
 public:
  NfsDevice(DriverContext& context, Endpoint endpoint, Purpose purpose)
      : storage_(context, std::move(endpoint), purpose), purpose_(purpose) {}

  Task<Result<void>> open(const OpenOptions& options) {
    DISKFERRY_CO_CHECK(co_await storage_.open(options.connections));
    const FileFacts& facts = storage_.facts();
    info_.name = storage_.endpoint().name;
    info_.request_bytes_max = request_bytes_max;
    info_.is_read_only = purpose_ == Purpose::read;
    info_.may_lose_unflushed = true;
    info_.can_fua = purpose_ == Purpose::write;
    info_.can_grow = purpose_ == Purpose::write;
    info_.can_multi_connection = true;
    info_.parallel_requests = storage_.connections() * parallel_per_connection;
    const bool may_be_zero = facts.used_bytes == 0 && facts.size_bytes >= holes_bytes_min;
    if (purpose_ == Purpose::read || !may_be_zero) co_return Result<void>{};
    auto is_zero = co_await reads_as_zeros(storage_);
    if (!is_zero) {
      co_await storage_.close();
      co_return unexpected(std::move(is_zero).error());
    }
    info_.starts_zeroed = *is_zero;
    co_return Result<void>{};
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return storage_.size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return storage_.read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    return storage_.write(offset, from, flags.fua);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags) override {
    co_return unexpected(fail(ErrorKind::unsupported, "zero", info_.name)
                             .why("NFSv3 has no request for it")
                             .at(range.offset, range.length));
  }
  Task<Result<void>> discard(Range) override { co_return Result<void>{}; }
  Task<Result<void>> flush() override { return storage_.flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
  }
  Task<Result<void>> close() override {
    co_await storage_.close();
    co_return Result<void>{};
  }
  std::uint64_t repeated_requests() const noexcept override { return storage_.repeated_requests(); }
  void stop_waiting() noexcept override { storage_.stop_waiting(); }

 private:
  Storage storage_;
  const Purpose purpose_;
  DeviceInfo info_{};
};

Result<Endpoint> endpoint_for_writing(const ImageUri& uri) {
  DISKFERRY_TRY(Endpoint endpoint, parse_endpoint(uri));
  if (endpoint.version == 4)
    return unexpected(fail(ErrorKind::unsupported, "open for writing", endpoint.name)
                          .why("this libnfs cannot write more than 3.5 KiB at once by NFSv4")
                          .remedy("use version=3, which the same servers speak"));
  return endpoint;
}

Task<Result<DevicePtr>> open(DriverContext& context, ImageUri uri, OpenOptions options) {
  DISKFERRY_CO_TRY(Endpoint endpoint, options.writable ? endpoint_for_writing(uri) : parse_endpoint(uri));
  auto device = std::make_unique<NfsDevice>(context, std::move(endpoint),
                                            options.writable ? Purpose::write : Purpose::read);
  DISKFERRY_CO_CHECK(co_await device->open(options));
  co_return device;
}

/// One session for what is done in the folder.
template <class T>
using Act = std::function<Task<Result<T>>(NfsSession&)>;
template <class T>
Task<Result<T>> in_folder(DriverContext& context, const Endpoint& endpoint, Act<T> act) {
  const auto session =
      std::make_shared<NfsSession>(context.reactors.front(), endpoint, context.clock, Purpose::write);
  const auto run = [](NfsSession& one, Clock& clock, Duration limit, Act<T> then) -> Task<Result<T>> {
    DISKFERRY_CO_CHECK(co_await one.mount());
    auto done = co_await with_deadline<T>(clock, limit, "wait for the server", then(one));
    co_await one.disconnect({});
    co_return done;
  };
  co_return co_await run_on(session->executor(),
                            run(*session, context.clock, endpoint.connect_limit, std::move(act)));
}

Task<Result<void>> create(DriverContext& context, ImageUri uri, CreateOptions options) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, endpoint_for_writing(uri));
  if (options.preallocate)
    co_return unexpected(fail(ErrorKind::unsupported, "create", endpoint.name)
                             .why("NFSv3 has no request that reserves storage")
                             .remedy("leave the preallocation out"));
  co_return co_await in_folder<void>(context, endpoint, [options](NfsSession& session) {
    return session.create(options.size_bytes, options.replace);
  });
}

Task<Result<void>> remove(DriverContext& context, ImageUri uri) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, endpoint_for_writing(uri));
  co_return co_await in_folder<void>(context, endpoint, [](NfsSession& session) { return session.unlink(); });
}

Task<Result<VolumeFacts>> look(DriverContext& context, ImageUri uri, LookOptions options) {
  DISKFERRY_CO_TRY(const Endpoint endpoint,
                   options.for_writing ? endpoint_for_writing(uri) : parse_endpoint(uri));
  co_return co_await in_folder<VolumeFacts>(
      context, endpoint, [options](NfsSession& session) { return session.look(options.for_writing); });
}

}  // namespace
}  // namespace nfs

const Driver nfs_driver{.scheme = "nfs",
                        .aliases = {},
                        .summary = "files on an NFS server, unmounted: nfs://host/export/disk.raw",
                        .keys = nfs::endpoint_keys,
                        .open = nfs::open,
                        .create = nfs::create,
                        .look = nfs::look,
                        .remove = nfs::remove,
                        .server_request_bytes = 512u << 10};

}  // namespace diskferry
