// See the header.
#include "gateway/pki/pem_files.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry::pki {
namespace {

constexpr std::size_t file_bytes_max = std::size_t{1} << 20;  // a chain of certificates has some kilobytes

Error errno_of(const std::string& operation, const std::string& path) {
  return errno_error(errno, operation, printable(path));
}

/// A file under way: removed unless it was given its name.
class NewFile {
 public:
  NewFile(std::string path, bool is_secret)
      : path_(std::move(path)),
        temporary_(fmt::format("{}.{}.new", path_, ::getpid())),
        mode_(is_secret ? 0600 : 0644) {}
  NewFile(NewFile&& other) noexcept
      : path_(other.path_), temporary_(std::exchange(other.temporary_, {})), mode_(other.mode_) {}
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  Result<void> write(const std::string& text) {
    ::unlink(temporary_.c_str());  // of a process that had our number and was killed
    const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode_);
    if (fd < 0) return unexpected(errno_of("write", path_));
    std::size_t done = 0;
    bool is_good = ::fchmod(fd, mode_) == 0;  // whatever the umask
    while (is_good && done < text.size()) {
      const ssize_t put = ::write(fd, text.data() + done, text.size() - done);
      if (put > 0) done += static_cast<std::size_t>(put);
      is_good = put > 0 || (put < 0 && errno == EINTR);
    }
    is_good = is_good && ::fsync(fd) == 0;
    const int problem = errno;
    ::close(fd);
    if (!is_good) return unexpected(errno_error(problem, "write", printable(path_)));
    return {};
  }
  Result<void> give_name(bool replace) {
    const int done =
        replace ? ::rename(temporary_.c_str(), path_.c_str())
                : ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
    if (done != 0) return unexpected(errno_of("write", path_));
    temporary_.clear();
    return {};
  }

 private:
  std::string path_;
  std::string temporary_;
  mode_t mode_;
};

Result<void> make_folder(const std::string& folder) {
  std::error_code problem;
  if (const auto parent = std::filesystem::path(folder).parent_path(); !parent.empty())
    std::filesystem::create_directories(parent, problem);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return unexpected(errno_of("make folder", folder));
  return {};
}

void sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // then a power cut may take the files away, and they are made again
  (void)::fsync(fd);
  ::close(fd);
}

}  // namespace

bool is_there(const std::string& path) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0;
}

Result<void> write_files(const std::string& folder, const std::vector<PemFile>& files, bool replace) {
  DISKFERRY_CHECK(make_folder(folder));
  for (const PemFile& file : files) {
    const std::string path = folder + "/" + file.name;
    if (!replace && is_there(path))
      return unexpected(fail(ErrorKind::already_exists, "write", printable(path))
                            .remedy("nothing was changed; --force replaces what is there"));
  }
  std::vector<NewFile> written;
  written.reserve(files.size());
  for (const PemFile& file : files) {
    written.emplace_back(folder + "/" + file.name, file.is_secret);
    DISKFERRY_CHECK(written.back().write(file.text));
  }
  for (NewFile& file : written) DISKFERRY_CHECK(file.give_name(replace));
  sync_folder(folder);
  return {};
}

Result<std::string> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return unexpected(errno_of("read", path));
  std::string text;
  std::array<char, 16384> chunk;
  ssize_t got = 0;
  while (text.size() <= file_bytes_max && (got = ::read(fd, chunk.data(), chunk.size())) > 0)
    text.append(chunk.data(), static_cast<std::size_t>(got));
  const int problem = errno;
  ::close(fd);
  if (got < 0) return unexpected(errno_error(problem, "read", printable(path)));
  if (text.size() > file_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "read", printable(path)).why("no certificate or key is that large"));
  return text;
}

}  // namespace diskferry::pki
