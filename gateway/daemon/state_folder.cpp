// See state_folder.hpp.
#include "gateway/daemon/state_folder.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/durable_file.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry::daemon {
namespace {

constexpr std::size_t id_bytes = 16;

class File {
 public:
  File(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<std::string> read_id(const std::string& path, int fd) {
  std::array<char, 2 * id_bytes + 2> text{};
  const ssize_t got = read(fd, text.data(), text.size());
  if (got < 0) return unexpected(errno_error(errno, "read", printable(path)));
  std::string id(text.data(), static_cast<std::size_t>(got));
  if (id.ends_with('\n')) id.pop_back();
  const bool is_hex = std::ranges::all_of(id, [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (id.size() != 2 * id_bytes || !is_hex)
    return unexpected(fail(ErrorKind::corrupt, "read", printable(path))
                          .why("it does not hold the gateway's identity")
                          .remedy("remove it, and a new identity is made"));
  return id;
}

}  // namespace

Result<void> make_state_folder(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return unexpected(errno_error(errno, "make the state folder", printable(path)));
  struct stat status{};
  if (stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    return unexpected(errno_error(ENOTDIR, "use the state folder", printable(path)));
  if ((status.st_mode & 0022) != 0)
    return unexpected(fail(ErrorKind::permission, "use the state folder", printable(path))
                          .why("others may write to it")
                          .remedy(fmt::format("chmod 0700 {}", printable(path))));
  return {};
}

Result<std::string> gateway_id(const std::string& state_folder) {
  const std::string path = state_folder + "/gateway-id";
  {
    const File file(path, O_RDONLY);
    if (file.get() >= 0) return read_id(path, file.get());
    if (errno != ENOENT) return unexpected(errno_error(errno, "open", printable(path)));
  }
  std::array<unsigned char, id_bytes> random{};
  if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    return unexpected(errno_error(errno, "make the gateway's identity"));
  std::string id = fmt::format("{:02x}", fmt::join(random, ""));
  DISKFERRY_CHECK(replace_durably(path, id + "\n"));
  return id;
}

Result<void> make_parent(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty() || mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST) return {};
  return unexpected(errno_error(errno, "make folder", printable(folder)));
}

}  // namespace diskferry::daemon
