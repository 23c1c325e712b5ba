#include "drivers/rbd/client_note.hpp"

#include <array>
#include <charconv>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <optional>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace diskferry::rbd {
namespace {

/// A name is "rbd-client-NUMBER"; the content is "BOOT INODE IMAGE".
constexpr std::string_view name_start = "rbd-client-";
constexpr std::size_t text_bytes_max = 1024;

std::string path_of(const std::string& folder, std::uint64_t client_id) {
  return fmt::format("{}/{}{}", folder, name_start, client_id);
}

std::optional<std::uint64_t> client_of(const std::string& name) {
  if (!name.starts_with(name_start)) return std::nullopt;
  const char* const begin = name.data() + name_start.size();
  const char* const end = name.data() + name.size();
  std::uint64_t id = 0;
  const auto read = std::from_chars(begin, end, id);
  if (read.ec != std::errc{} || read.ptr != end) return std::nullopt;
  return id;
}

/// Empty where the system does not tell.
const std::string& this_boot() {
  static const std::string id = [] {
    std::string line;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), line);
    return line;
  }();
  return id;
}

std::string text_of(int fd, const std::string& image) {
  struct stat status{};
  if (this_boot().empty() || image.empty() || ::fstat(fd, &status) != 0) return {};
  return fmt::format("{} {} {}", this_boot(), status.st_ino, image);
}

class OpenNote {
 public:
  explicit OpenNote(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW)) {
    if (fd_ < 0) return;
    std::array<char, text_bytes_max + 1> text{};
    const ssize_t bytes = ::pread(fd_, text.data(), text.size(), 0);
    if (bytes > 0) text_.assign(text.data(), static_cast<std::size_t>(bytes));
  }
  ~OpenNote() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenNote(const OpenNote&) = delete;
  OpenNote& operator=(const OpenNote&) = delete;

  bool is_of(const std::string& image) const { return !text_.empty() && text_ == text_of(fd_, image); }
  bool is_of_this_boot() const { return text_.starts_with(this_boot()); }
  bool is_held() const { return ::flock(fd_, LOCK_EX | LOCK_NB) != 0; }
  bool is_open() const { return fd_ >= 0; }

 private:
  const int fd_;
  std::string text_;
};

void for_each_note(const std::string& folder,
                   const std::function<void(std::uint64_t client_id, const OpenNote& note)>& what) {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    const auto client = client_of(at->path().filename().string());
    if (!client) continue;
    const OpenNote note(at->path().string());
    if (note.is_open()) what(*client, note);
  }
}

}  // namespace

std::unique_ptr<ClientNote> ClientNote::leave(const std::string& folder, const std::string& image,
                                              std::uint64_t client_id) {
  if (folder.empty()) return nullptr;
  const std::string path = path_of(folder, client_id);
  // Under its name only when it is whole and locked: without a lock it would be that of a dead one.
  const std::string unnamed = path + ".new";
  const int fd = ::open(unnamed.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return nullptr;
  std::unique_ptr<ClientNote> note(new ClientNote(path, fd));
  const std::string text = text_of(fd, image);
  const bool is_whole = !text.empty() && text.size() <= text_bytes_max &&
                        ::flock(fd, LOCK_EX | LOCK_NB) == 0 &&
                        ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
                        ::rename(unnamed.c_str(), path.c_str()) == 0;
  if (is_whole) return note;
  (void)::unlink(unnamed.c_str());
  return nullptr;
}

ClientNote::~ClientNote() {
  (void)::unlink(path_.c_str());
  ::close(fd_);
}

std::vector<std::uint64_t> dead_clients(const std::string& folder, const std::string& image) {
  std::vector<std::uint64_t> dead;
  if (folder.empty()) return dead;
  for_each_note(folder, [&](std::uint64_t client_id, const OpenNote& note) {
    if (note.is_of(image) && !note.is_held()) dead.push_back(client_id);
  });
  return dead;
}

void forget_dead_clients(const std::string& folder, const std::string& image) {
  if (folder.empty() || this_boot().empty()) return;
  for_each_note(folder, [&](std::uint64_t client_id, const OpenNote& note) {
    if ((note.is_of(image) || !note.is_of_this_boot()) && !note.is_held())
      (void)::unlink(path_of(folder, client_id).c_str());
  });
}

}  // namespace diskferry::rbd
