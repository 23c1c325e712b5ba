#include "drivers/gluster/on_volume.hpp"

#include "drivers/gluster/handles.hpp"
#include "drivers/gluster/mounts.hpp"
#include "drivers/gluster/status.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>

namespace diskferry::gluster {
namespace {

/// Of a new disk: for its owner alone, as the file driver makes them.
constexpr mode_t new_file_mode = 0600;
constexpr std::size_t id_bytes = 16;
constexpr std::int64_t ns_per_s = 1'000'000'000;
constexpr std::uint64_t stat_block_bytes = 512;  // of st_blocks, whatever the file system's are (stat(2))

template <class T>
struct Job {
  std::string verb;
  Duration limit;
  std::function<Result<T>(glfs*)> work;  ///< goes on when nobody waits for it any more
};

Result<void> ask_for_life(glfs* fs, const std::string& name) {
  struct statvfs space{};
  if (glfs_statvfs(fs, "/", &space) == 0) return {};
  return unexpected(call_error(errno, "look at the volume of", name));
}

/// Mounts, and mounts anew where a mount that was kept turns out to be of no use: of a volume that was made
/// anew since, or with a brick that was restarted. It is asked for something that may be asked twice.
Task<Result<VolumePtr>> mount_that_lives(Clock& clock, const Endpoint& endpoint) {
  while (true) {
    DISKFERRY_CO_TRY(const Mount mounted, co_await mount(clock, endpoint));
    if (!mounted.was_there) co_return mounted.volume;
    const std::string verb = "look at the volume";
    std::function<Result<void>(glfs*)> work = [name = endpoint.name](glfs* fs) {
      return ask_for_life(fs, name);
    };
    const auto lives = co_await with_deadline(clock, endpoint.connect_limit, verb,
                                              mounted.volume->call<void>(verb, std::move(work)));
    if (lives) co_return mounted.volume;
    const ErrorKind kind = lives.error().kind();
    if (kind == ErrorKind::cancelled) co_return unexpected(lives.error());
    // Whatever else it says, the job itself will meet.
    if (kind != ErrorKind::gone && kind != ErrorKind::timed_out) co_return mounted.volume;
    forget_mount(mounted.volume);
  }
}

/// Does the job once, whatever it gives: one that was given up, or whose answer was lost, may have been
/// carried out, or be under way still.
template <class T>
Task<Result<T>> on_volume(Clock& clock, const Endpoint& endpoint, Job<T> job) {
  DISKFERRY_CO_TRY(VolumePtr volume, co_await mount_that_lives(clock, endpoint));
  auto done =
      co_await with_deadline(clock, job.limit, job.verb, volume->call<T>(job.verb, std::move(job.work)));
  volume.reset();
  trim_mounts();
  co_return done;
}

/// Its size, its storage if asked for, and both durable.
Result<void> give_size(glfs_fd* fd, const CreateOptions& options, const std::string& name) {
  if (glfs_ftruncate(fd, static_cast<off_t>(options.size_bytes), nullptr, nullptr) != 0)
    return unexpected(call_error(errno, "give the size to", name));
  if (options.preallocate && options.size_bytes > 0 && glfs_fallocate(fd, 0, 0, options.size_bytes) != 0) {
    Error error = call_error(errno, "preallocate", name);
    if (error.kind() != ErrorKind::unsupported) return unexpected(std::move(error));
    return unexpected(std::move(error).remedy("leave out preallocation"));
  }
  if (glfs_fsync(fd, nullptr, nullptr) != 0) return unexpected(call_error(errno, "flush", name));
  return {};
}

Result<void> create_waiting(glfs* fs, const Endpoint& endpoint, const CreateOptions& options) {
  const std::string& name = endpoint.name;
  if (options.size_bytes > INT64_MAX)
    return unexpected(fail(ErrorKind::too_large, "create", name).why("no file can be that large"));
  Fd fd(glfs_creat(fs, endpoint.path.c_str(), O_RDWR | O_EXCL, new_file_mode));
  if (fd) {
    auto made = lock_file(fd.get(), Purpose::write, name);
    if (made) made = give_size(fd.get(), options, name);
    if (!made) (void)glfs_unlink(fs, endpoint.path.c_str());  // ours, and still empty
    return made;
  }
  if (errno != EEXIST) {
    Error error = call_error(errno, "create", name);
    if (error.kind() != ErrorKind::not_found) return unexpected(std::move(error));
    return unexpected(std::move(error).why("its folder is not there").remedy("make it on the volume"));
  }
  if (!options.replace)
    return unexpected(fail(ErrorKind::already_exists, "create", name)
                          .remedy("choose another name, or say that it may be replaced"));
  fd.reset(glfs_open(fs, endpoint.path.c_str(), O_RDWR));
  if (!fd) return unexpected(call_error(errno, "create", name));
  DISKFERRY_CHECK(lock_file(fd.get(), Purpose::write, name));
  if (glfs_ftruncate(fd.get(), 0, nullptr, nullptr) != 0) return unexpected(call_error(errno, "empty", name));
  return give_size(fd.get(), options, name);
}

Result<void> remove_waiting(glfs* fs, const Endpoint& endpoint) {
  struct stat status{};
  const std::string& name = endpoint.name;
  const Object object(glfs_h_lookupat(fs, nullptr, endpoint.path.c_str(), &status, 0));
  if (!object) return unexpected(call_error(errno, "remove", name));
  if (!S_ISREG(status.st_mode))
    return unexpected(fail(ErrorKind::unsupported, "remove", name).why("only a regular file can be removed"));
  const Fd fd(glfs_h_open(fs, object.get(), O_RDWR));
  if (!fd) return unexpected(call_error(errno, "remove", name));
  DISKFERRY_CHECK(lock_file(fd.get(), Purpose::write, name));
  if (glfs_unlink(fs, endpoint.path.c_str()) != 0) return unexpected(call_error(errno, "remove", name));
  return {};
}

// --- looking ----------------------------------------------------------------------------------------------

std::string hexadecimal(std::span<const unsigned char> bytes) {
  std::string text;
  for (const unsigned char one : bytes) text += fmt::format("{:02x}", one);
  return text;
}

/// Of the volume and of the file in it; empty where the server does not tell.
std::string identity_of(glfs* fs, glfs_object* object) {
  std::array<unsigned char, id_bytes> volume{};
  std::array<unsigned char, id_bytes> file{};
  if (glfs_get_volumeid(fs, reinterpret_cast<char*>(volume.data()), volume.size()) < 0 ||
      glfs_h_extract_handle(object, file.data(), static_cast<int>(file.size())) < 0)
    return {};
  return fmt::format("gluster|{}|{}", hexadecimal(volume), hexadecimal(file));
}

void add_free_space(glfs* fs, const Endpoint& endpoint, VolumeFacts& facts) {
  struct statvfs space{};
  if (glfs_statvfs(fs, endpoint.folder().c_str(), &space) == 0)
    facts.free_bytes = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
}

bool is_obstacle(ErrorKind kind) noexcept {
  return kind == ErrorKind::not_found || kind == ErrorKind::permission || kind == ErrorKind::read_only ||
         kind == ErrorKind::in_use;
}

/// Why nothing could be created there. A volume that is read-only says so of changes only: nobody has this
/// attribute.
Result<void> look_at_folder(glfs* fs, const Endpoint& endpoint, VolumeFacts& facts) {
  const std::string folder = endpoint.folder();
  if (glfs_access(fs, folder.c_str(), W_OK | X_OK) == 0 &&
      (glfs_removexattr(fs, folder.c_str(), "user.diskferry.nothing") == 0 || errno != EROFS))
    return {};
  Error error = call_error(errno, "look at the folder of", endpoint.name);
  if (!is_obstacle(error.kind())) return unexpected(std::move(error));
  if (error.kind() == ErrorKind::not_found)
    error = std::move(error).why("its folder is not there").remedy("make it on the volume");
  facts.obstacles.push_back(std::move(error));
  return {};
}

/// Why it could not be written to. A volume that is read-only lets it be opened, but not locked for writing.
Result<void> look_for_writing(glfs* fs, glfs_object* object, const Endpoint& endpoint, VolumeFacts& facts) {
  const Fd fd(glfs_h_open(fs, object, O_RDWR));
  Result<void> done;
  if (!fd) done = unexpected(call_error(errno, "open", endpoint.name));
  if (fd) done = lock_file(fd.get(), Purpose::write, endpoint.name);
  if (done || !is_obstacle(done.error().kind())) return done;
  facts.obstacles.push_back(std::move(done).error());
  return {};
}

Result<VolumeFacts> look_waiting(glfs* fs, const Endpoint& endpoint, LookOptions options) {
  VolumeFacts facts;
  struct stat status{};
  const Object object(glfs_h_lookupat(fs, nullptr, endpoint.path.c_str(), &status, 1));
  if (!object) {
    Error error = call_error(errno, "look at", endpoint.name);
    if (error.kind() != ErrorKind::not_found) return unexpected(std::move(error));
    if (options.for_writing) DISKFERRY_CHECK(look_at_folder(fs, endpoint, facts));
    add_free_space(fs, endpoint, facts);
    return facts;
  }
  if (!S_ISREG(status.st_mode))
    return unexpected(
        fail(ErrorKind::invalid_argument, "look at", endpoint.name).why("it is no regular file"));
  facts.exists = true;
  facts.can_be_emptied = true;
  facts.size_bytes = static_cast<std::uint64_t>(status.st_size);
  facts.identity = identity_of(fs, object.get());
  facts.modified_ns = std::int64_t{status.st_mtim.tv_sec} * ns_per_s + status.st_mtim.tv_nsec;
  if (options.for_writing) DISKFERRY_CHECK(look_for_writing(fs, object.get(), endpoint, facts));
  add_free_space(fs, endpoint, facts);
  // What it has, it keeps when it is written again.
  if (facts.free_bytes) *facts.free_bytes += static_cast<std::uint64_t>(status.st_blocks) * stat_block_bytes;
  return facts;
}

}  // namespace

Task<Result<void>> create_file(Clock& clock, const Endpoint& endpoint, CreateOptions options) {
  return on_volume<void>(
      clock, endpoint,
      {.verb = "create", .limit = endpoint.change_limit(), .work = [endpoint, options](glfs* fs) {
         return create_waiting(fs, endpoint, options);
       }});
}

Task<Result<VolumeFacts>> look_at_file(Clock& clock, const Endpoint& endpoint, LookOptions options) {
  return on_volume<VolumeFacts>(
      clock, endpoint,
      {.verb = "look at", .limit = endpoint.connect_limit, .work = [endpoint, options](glfs* fs) {
         return look_waiting(fs, endpoint, options);
       }});
}

Task<Result<void>> remove_file(Clock& clock, const Endpoint& endpoint) {
  return on_volume<void>(clock, endpoint,
                         {.verb = "remove", .limit = endpoint.change_limit(), .work = [endpoint](glfs* fs) {
                            return remove_waiting(fs, endpoint);
                          }});
}

}  // namespace diskferry::gluster
