// Opening, creating and removing; see file_driver.hpp. All of it on a blocking thread, since any of these
// calls may wait for a file server.
#include "drivers/file/file_driver.hpp"

#include "diskferry/units.hpp"
#include "drivers/file/file_calls.hpp"
#include "drivers/file/file_device.hpp"
#include "drivers/file/file_look.hpp"
#include "drivers/file/image_lock.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/durable_file.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry {
namespace {

struct Ready {
  OpenedFile file;
  FileFacts facts;
};

/// True when a key has its second value, false when it has the first or is not there.
Result<bool> choice(const ImageUri& uri, std::string_view key, std::string_view usual,
                    std::string_view other) {
  const auto value = uri.query(key);
  if (!value || *value == usual) return false;
  if (*value == other) return true;
  return unexpected(fail(ErrorKind::invalid_argument, "open", uri.to_string())
                        .why(fmt::format("{} is {} or {}", key, usual, other)));
}

Result<Ready> open_waiting(const ImageUri& uri, OpenOptions options) {
  const std::string name = uri.to_string();
  if (options.writable && options.force_share)
    return unexpected(fail(ErrorKind::invalid_argument, "open", name)
                          .why("an image that others use can be shared for reading only"));
  OpenFileOptions how{.writable = options.writable,
                      .force_share = options.force_share,
                      .refuse_links = !options.real_path.empty()};
  DISKFERRY_TRY(how.direct, choice(uri, "cache", "auto", "none"));
  DISKFERRY_TRY(const bool threads_only, choice(uri, "io", "auto", "threads"));
  how.use_rings = !threads_only;
  Ready ready;
  DISKFERRY_TRY(ready.file,
                open_existing(options.real_path.empty() ? uri.path() : options.real_path, name, how));
  if (!options.force_share && !options.without_lock)
    DISKFERRY_CHECK(
        lock_image(ready.file.fd.get(), options.writable ? ImageLock::exclusive : ImageLock::shared, name));
  // Whoever held the lock until now may have changed the size.
  if (::fstat(ready.file.fd.get(), &ready.file.status) != 0)
    return unexpected(call_error(errno, "open", name));
  DISKFERRY_TRY(ready.facts, find_facts(ready.file, name, how));
  return ready;
}

Task<Result<DevicePtr>> open_file(DriverContext& context, ImageUri uri, OpenOptions options) {
  DISKFERRY_CO_TRY(Ready ready, co_await context.blocking_pool.run(
                                    [&uri, options] { return open_waiting(uri, options); }));
  co_return make_file_device(context, std::move(ready.file), std::move(ready.facts));
}

/// Gives the file its size, and its storage if asked for.
Result<void> give_size(int fd, const CreateOptions& options, const std::string& name) {
  const auto size = static_cast<off_t>(options.size_bytes);
  if (::ftruncate(fd, size) != 0) return unexpected(call_error(errno, "give the size to", name));
  if (options.preallocate && size > 0) {
    int failed = 0;
    do {
      failed = ::fallocate(fd, 0, 0, size) == 0 ? 0 : errno;
    } while (failed == EINTR);
    if (failed == EOPNOTSUPP || failed == ENOSYS)
      return unexpected(fail(ErrorKind::unsupported, "preallocate", name)
                            .cause(errno_code(failed))
                            .remedy("leave out preallocation"));
    if (failed != 0) return unexpected(call_error(failed, "preallocate", name));
  }
  if (::fsync(fd) != 0) return unexpected(call_error(errno, "flush", name));
  return {};
}

Result<void> create_fresh(const std::string& path, const CreateOptions& options, const std::string& name) {
  DISKFERRY_TRY(const OpenedFile file, create_new(path, name));
  auto made = lock_image(file.fd.get(), ImageLock::exclusive, name);
  if (made) made = give_size(file.fd.get(), options, name);
  if (made) made = sync_folder_of(path);
  if (!made) (void)::unlink(path.c_str());  // ours, and still empty
  return made;
}

Result<void> reuse(const OpenedFile& file, const CreateOptions& options, const std::string& name) {
  const int fd = file.fd.get();
  DISKFERRY_CHECK(lock_image(fd, ImageLock::exclusive, name));
  if (!file.is_block_device()) {
    if (::ftruncate(fd, 0) != 0) return unexpected(call_error(errno, "empty", name));
    return give_size(fd, options, name);
  }
  std::uint64_t has_bytes = 0;
  if (::ioctl(fd, BLKGETSIZE64, &has_bytes) != 0)
    return unexpected(call_error(errno, "ask for the size", name));
  if (has_bytes < options.size_bytes)
    return unexpected(fail(ErrorKind::no_space, "reuse", name)
                          .why(fmt::format("the device has {}, and {} are needed", format_bytes(has_bytes),
                                           format_bytes(options.size_bytes))));
  return {};
}

Result<void> create_waiting(const ImageUri& uri, const CreateOptions& options) {
  const std::string name = uri.to_string();
  const std::string& path = uri.path();
  if (options.size_bytes > INT64_MAX)
    return unexpected(fail(ErrorKind::too_large, "create", name).why("no file can be that large"));
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return create_fresh(path, options, name);
    return unexpected(call_error(errno, "create", name));
  }
  if (!options.replace)
    return unexpected(fail(ErrorKind::already_exists, "create", name)
                          .remedy("choose another name, or say that it may be replaced"));
  DISKFERRY_TRY(const OpenedFile existing, open_existing(path, name, {.writable = true}));
  return reuse(existing, options, name);
}

Task<Result<void>> create_file(DriverContext& context, ImageUri uri, CreateOptions options) {
  co_return co_await context.blocking_pool.run([&uri, &options] { return create_waiting(uri, options); });
}

Result<void> remove_waiting(const ImageUri& uri) {
  const std::string name = uri.to_string();
  const std::string& path = uri.path();
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return unexpected(errno_error(errno, "remove", name));
  if (!S_ISREG(status.st_mode))
    return unexpected(fail(ErrorKind::unsupported, "remove", name).why("only a regular file can be removed"));
  DISKFERRY_TRY(const OpenedFile file, open_existing(path, name, {.writable = true}));
  DISKFERRY_CHECK(lock_image(file.fd.get(), ImageLock::exclusive, name));
  if (file.status.st_dev != status.st_dev || file.status.st_ino != status.st_ino)
    return unexpected(fail(ErrorKind::in_use, "remove", name).why("somebody exchanged the file just now"));
  if (::unlink(path.c_str()) != 0) return unexpected(errno_error(errno, "remove", name));
  return sync_folder_of(path);
}

Task<Result<void>> remove_file(DriverContext& context, ImageUri uri) {
  co_return co_await context.blocking_pool.run([&uri] { return remove_waiting(uri); });
}

Task<Result<VolumeFacts>> look(DriverContext& context, ImageUri uri, LookOptions options) {
  co_return co_await context.blocking_pool.run([&uri, options] { return look_at_file(uri, options); });
}

constexpr std::array<DriverKey, 2> file_keys{
    {{"cache", "auto: through the page cache; none: direct I/O, past it"},
     {"io", "auto: io_uring where there is one; threads: never"}}};

}  // namespace

const Driver file_driver{.scheme = "file",
                         .aliases = {},
                         .summary = "a local file or block device: PATH or file:///PATH",
                         .keys = file_keys,
                         .open = open_file,
                         .create = create_file,
                         .look = look,
                         .remove = remove_file};

}  // namespace diskferry
