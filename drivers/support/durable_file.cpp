// See the header.
#include "drivers/support/durable_file.hpp"

#include "diskferry/image_uri.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace diskferry {
namespace {

Error write_error(int number, const std::string& path) {
  return errno_error(number, "write", printable(path));
}

}  // namespace

NewFile::NewFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

NewFile::~NewFile() {
  close();
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void NewFile::close() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Result<NewFile> NewFile::create(std::string path, mode_t mode, std::string_view suffix) {
  std::string temporary = path + std::string(suffix);
  ::unlink(temporary.c_str());  // of a process that was killed
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return unexpected(write_error(errno, path));
  NewFile file(std::move(path), std::move(temporary), fd);
  if (::fchmod(fd, mode) != 0) return unexpected(write_error(errno, file.path_));
  return file;
}

Result<void> NewFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return unexpected(write_error(errno, path_));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> NewFile::finish() {
  const int failed = ::fsync(fd_) == 0 ? 0 : errno;
  close();
  if (failed != 0) return unexpected(write_error(failed, path_));
  return {};
}

Result<void> NewFile::give_name(bool replace) {
  const int done = replace
                       ? ::rename(temporary_.c_str(), path_.c_str())
                       : ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
  if (done != 0) return unexpected(write_error(errno, path_));
  temporary_.clear();
  return {};
}

Result<void> sync_folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return sync_folder(parent.empty() ? "." : parent);
}

Result<void> sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return unexpected(errno_error(errno, "open the folder", printable(folder)));
  const int failed = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (failed != 0 && failed != EINVAL)
    return unexpected(errno_error(failed, "make the folder's names durable", printable(folder)));
  return {};
}

Result<void> replace_durably(const std::string& path, std::string_view text, mode_t mode) {
  DISKFERRY_TRY(NewFile file, NewFile::create(path, mode));
  DISKFERRY_CHECK(file.write(text));
  DISKFERRY_CHECK(file.finish());
  DISKFERRY_CHECK(file.give_name());
  return sync_folder_of(path);
}

}  // namespace diskferry
