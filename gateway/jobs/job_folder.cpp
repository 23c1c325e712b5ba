// See the header.
#include "gateway/jobs/job_folder.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/durable_file.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace diskferry {
namespace {

constexpr const char* operation = "open job folder";

/// Whoever may write into the folder may put another database there.
Result<void> make_folder(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code problem;
  if (const auto parent = fs::path(path).parent_path(); !parent.empty())
    fs::create_directories(parent, problem);
  if (::mkdir(path.c_str(), 0700) == 0) {
    // Where it cannot be: a power cut may take the empty folder away, and no job was in it.
    (void)sync_folder_of(path);
    return {};
  }
  if (errno != EEXIST) return unexpected(errno_error(errno, operation, printable(path)));
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0) return unexpected(errno_error(errno, operation, printable(path)));
  if (!S_ISDIR(found.st_mode)) return unexpected(errno_error(ENOTDIR, operation, printable(path)));
  if ((found.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return unexpected(fail(ErrorKind::permission, operation, printable(path))
                          .why("others may write into the folder")
                          .remedy("chmod 0700 it"));
  return {};
}

/// The database file, for its user alone: SQLite gives the files beside it the same mode.
Result<void> make_database_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return unexpected(errno_error(errno, operation, printable(path)));
  const bool is_private = ::fchmod(fd, 0600) == 0;
  const int problem = errno;
  ::close(fd);
  if (!is_private) return unexpected(errno_error(problem, operation, printable(path)));
  return {};
}

Error held_by_another(int fd, const std::string& path) {
  std::array<char, 32> text{};
  const ssize_t bytes = ::pread(fd, text.data(), text.size() - 1, 0);
  std::string holder(text.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
  holder = holder.substr(0, holder.find('\n'));
  // Where the other one has not written it yet, or something else is in the file.
  if (holder.empty() || holder.find_first_not_of("0123456789") != std::string::npos) holder = "unknown";
  return fail(ErrorKind::in_use, operation, printable(path))
      .why(fmt::format("another gateway uses it (process {})", holder))
      .remedy("stop that one, or give this one a folder of its own");
}

Result<int> take_lock(const std::string& folder) {
  const std::string path = folder + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return unexpected(errno_error(errno, operation, printable(path)));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int problem = errno;
    Error error = problem == EWOULDBLOCK ? held_by_another(fd, folder)
                                         : errno_error(problem, operation, printable(path));
    ::close(fd);
    return unexpected(std::move(error));
  }
  // For the message above only: what counts is the lock. A full disk must not keep jobs from being read.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) == 0 && ::pwrite(fd, pid.data(), pid.size(), 0) < 0) (void)::ftruncate(fd, 0);
  return fd;
}

}  // namespace

Result<JobFolder> JobFolder::take(const std::string& path) {
  if (path.empty()) return unexpected(fail(ErrorKind::invalid_argument, operation).why("no folder is named"));
  DISKFERRY_CHECK(make_folder(path));
  DISKFERRY_TRY(const int fd, take_lock(path));
  JobFolder folder(fd, path + "/jobs.sqlite");
  DISKFERRY_CHECK(make_database_file(folder.database_path_));
  // Where it cannot be: a power cut may take the empty file away with its name, and no job was in it.
  (void)sync_folder(path);
  return folder;
}

JobFolder::JobFolder(JobFolder&& other) noexcept
    : lock_fd_(std::exchange(other.lock_fd_, -1)), database_path_(std::move(other.database_path_)) {}

JobFolder::~JobFolder() {
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

}  // namespace diskferry
