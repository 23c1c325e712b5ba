// Asking a server about a file that need not be there: nothing is changed.
#include "drivers/nfs/callbacks.hpp"
#include "drivers/nfs/status.hpp"

#include <fmt/format.h>
#include <unistd.h>

namespace diskferry::nfs {
namespace {

constexpr std::uint64_t ns_per_s = 1'000'000'000;

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace

/// What may be done with `path` in the mounted folder; an obstacle where that is not writing.
Task<Result<void>> NfsSession::check_access(std::string path, std::string_view what, VolumeFacts& facts) {
  auto allowed = co_await call("ask for access to", [&path](nfs_context* context, void* owned) {
    return nfs_access2_async(context, path.c_str(), Callbacks::done, owned);
  });
  if (!allowed && allowed.error().kind() == ErrorKind::gone) co_return unexpected(std::move(allowed).error());
  if (!allowed) {
    facts.obstacles.push_back(std::move(allowed).error());
  } else if (((*allowed)->result & W_OK) == 0) {
    facts.obstacles.push_back(
        status_error(NFS3ERR_ACCES, "write to", endpoint_.name)
            .why(fmt::format("the server does not let this user write to {}: it is another's, "
                             "or the export is read-only",
                             what)));
  }
  co_return Result<void>{};
}

Task<Result<void>> NfsSession::look_at_file(VolumeFacts& facts, bool for_writing) {
  const auto found = co_await call("look at", [this](nfs_context* context, void* owned) {
    return nfs_stat64_async(context, endpoint_.file.c_str(), Callbacks::looked, owned);
  });
  if (!found && found.error().kind() == ErrorKind::not_found) {
    if (for_writing) co_return co_await check_access("/", "that folder", facts);
    co_return Result<void>{};
  }
  if (!found) co_return unexpected(found.error());
  const nfs_stat_64& now = (*found)->facts;
  if (!S_ISREG(now.nfs_mode))
    co_return unexpected(
        fail(ErrorKind::invalid_argument, "look at", endpoint_.name).why("it is no regular file"));
  facts.exists = true;
  facts.can_be_emptied = true;
  facts.size_bytes = now.nfs_size;
  facts.modified_ns = static_cast<std::int64_t>(now.nfs_mtime * ns_per_s + now.nfs_mtime_nsec);
  if (for_writing) DISKFERRY_CO_CHECK(co_await check_access(endpoint_.file, "that file", facts));
  // Who may not open it has heard so already, and needs no name of it.
  auto opened = co_await open_file(Purpose::read);
  if (!opened && (!for_writing || context_ == nullptr)) co_return unexpected(std::move(opened).error());
  if (opened && !opened->handle.empty()) facts.identity = "nfs|" + hex(opened->handle);
  co_return Result<void>{};
}

Task<Result<VolumeFacts>> NfsSession::look(bool for_writing) {
  VolumeFacts facts;
  DISKFERRY_CO_CHECK(co_await look_at_file(facts, for_writing));
  const auto space = co_await call("ask for space", [](nfs_context* context, void* owned) {
    return nfs_statvfs64_async(context, "/", Callbacks::measured, owned);
  });
  if (!space && context_ == nullptr) co_return unexpected(space.error());
  // A server that does not tell how much is free is none that is full.
  if (space) facts.free_bytes = (*space)->space.f_bavail * (*space)->space.f_frsize;
  co_return facts;
}

}  // namespace diskferry::nfs
