// How a file is opened: looked up, opened, locked; what can be done with it is tried out.
#include "diskferry/units.hpp"
#include "drivers/gluster/handles.hpp"
#include "drivers/gluster/status.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <sys/random.h>
#include <thread>

namespace diskferry::gluster {
namespace {

/// The byte that is locked: beyond every file, so that a volume with mandatory locks keeps nobody from the
/// content.
constexpr off_t lock_offset = off_t{1} << 62;
constexpr auto lock_patience = std::chrono::seconds(2);
constexpr auto lock_pause = std::chrono::milliseconds(50);
/// Where discard is tried: beyond the end of the file, where there is nothing to lose.
constexpr std::uint64_t probe_distance = 64 * mib;
constexpr std::uint64_t probe_bytes = 4096;

struct Opened {
  Fd fd;
  FileFacts facts;
};

struct flock one_byte(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = lock_offset;
  lock.l_len = 1;
  return lock;
}

void find_abilities(glfs_fd* fd, Purpose purpose, FileFacts& facts) {
  const off_t data = glfs_lseek(fd, 0, SEEK_DATA);
  const int number = errno;
  facts.can_seek = data >= 0 || number == ENXIO;
  facts.is_hole = facts.can_seek && data < 0 && facts.size_bytes > 0;
  if (purpose != Purpose::write) return;
  const std::uint64_t beyond = align_up(facts.size_bytes, probe_distance) + probe_distance;
  facts.can_discard = glfs_discard(fd, static_cast<off_t>(beyond), probe_bytes) == 0;
}

Result<Opened> open_waiting(glfs* fs, const Endpoint& endpoint, Purpose purpose) {
  const std::string& name = endpoint.name;
  struct stat status{};
  const Object object(glfs_h_lookupat(fs, nullptr, endpoint.path.c_str(), &status, 1));
  if (!object) return unexpected(call_error(errno, "open", name));
  if (!S_ISREG(status.st_mode))
    return unexpected(fail(ErrorKind::invalid_argument, "open", name).why("it is no regular file"));
  Opened opened;
  if (glfs_h_extract_handle(object.get(), opened.facts.id.data(), static_cast<int>(opened.facts.id.size())) <
      0)
    return unexpected(call_error(errno, "open", name));
  opened.fd.reset(glfs_h_open(fs, object.get(), purpose == Purpose::write ? O_RDWR : O_RDONLY));
  if (!opened.fd) return unexpected(call_error(errno, "open", name));
  DISKFERRY_CHECK(lock_file(opened.fd.get(), purpose, name));
  // Whoever held the lock until now may have changed the size.
  if (glfs_fstat(opened.fd.get(), &status) != 0) return unexpected(call_error(errno, "open", name));
  opened.facts.size_bytes = static_cast<std::uint64_t>(status.st_size);
  find_abilities(opened.fd.get(), purpose, opened.facts);
  return opened;
}

}  // namespace

/// Every opening is an owner of its own: with POSIX locks the close of one would let go of another's.
Result<void> lock_file(glfs_fd* fd, Purpose purpose, const std::string& name) {
  if (purpose == Purpose::read_shared) return {};
  std::array<char, 16> owner{};
  if (::getrandom(owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size()))
    return unexpected(call_error(errno, "lock", name));
  if (glfs_fd_set_lkowner(fd, owner.data(), static_cast<int>(owner.size())) != 0)
    return unexpected(call_error(errno, "lock", name));
  const auto give_up = std::chrono::steady_clock::now() + lock_patience;
  while (true) {
    struct flock wanted = one_byte(purpose == Purpose::write ? F_WRLCK : F_RDLCK);
    if (glfs_posix_lock(fd, F_SETLK, &wanted) == 0) return {};
    const int number = errno;
    if (number != EAGAIN && number != EACCES) return unexpected(call_error(number, "lock", name));
    if (std::chrono::steady_clock::now() >= give_up)
      return unexpected(fail(ErrorKind::in_use, "open", name)
                            .why("another diskferry has locked it")
                            .remedy("end the other one; if its host is dead, its lock goes within a minute"));
    std::this_thread::sleep_for(lock_pause);
  }
}

Task<Result<OpenFilePtr>> open_file(VolumePtr volume, const Endpoint& endpoint, Purpose purpose,
                                    std::uint64_t generation) {
  // It holds all that it uses: the call may go on when nobody waits for it any more.
  std::function<Result<OpenFilePtr>(glfs*)> work = [volume, endpoint, purpose,
                                                    generation](glfs* fs) -> Result<OpenFilePtr> {
    DISKFERRY_TRY(Opened opened, open_waiting(fs, endpoint, purpose));
    return std::make_shared<OpenFile>(volume, opened.fd.release(), opened.facts, generation);
  };
  co_return co_await volume->call<OpenFilePtr>("open", std::move(work));
}

}  // namespace diskferry::gluster
