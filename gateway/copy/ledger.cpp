// The ledger's file. All calls that may block run on the blocking pool. Two copies into one target exclude
// each other by a lock on this file, which the system drops when the process ends in whatever way.
#include "gateway/copy/ledger.hpp"

#include "diskferry/units.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/durable_file.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace {

Result<void> write_all(int fd, std::string_view bytes, std::uint64_t offset, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return unexpected(errno_error(errno, "write ledger", printable(path)));
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

/// Opens and locks. Errors: in_use, not_found (without O_CREAT), permission.
Result<int> open_locked(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return unexpected(errno_error(errno, "open ledger", printable(path)));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int problem = errno;
    ::close(fd);
    if (problem == EWOULDBLOCK)
      return unexpected(
          fail(ErrorKind::in_use, "open ledger", printable(path)).why("another copy into this target runs"));
    return unexpected(errno_error(problem, "lock ledger", printable(path)));
  }
  return fd;
}

/// Room that the file system keeps for the ledger: when the copy fills it, what was done can still be noted.
/// Enough for the pieces of 4 GiB; without it nothing is lost but that.
constexpr std::uint64_t reserved_bytes = 256 * kib;

/// A file mapped for reading, as long as this lives.
class Mapping {
 public:
  Mapping(int fd, std::size_t size) : size_(size) {
    if (size_ > 0) memory_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  }
  ~Mapping() {
    if (memory_ != MAP_FAILED) ::munmap(memory_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::span<const std::byte> bytes() const {
    if (memory_ == MAP_FAILED) return {};
    return {static_cast<const std::byte*>(memory_), size_};
  }

 private:
  std::size_t size_;
  void* memory_ = MAP_FAILED;
};

std::uint64_t file_bytes(int fd) {
  struct stat found{};
  return ::fstat(fd, &found) == 0 ? static_cast<std::uint64_t>(found.st_size) : 0;
}

}  // namespace

Ledger::~Ledger() {
  if (fd_ >= 0) ::close(fd_);
}

Task<Result<std::unique_ptr<Ledger>>> Ledger::create(DriverContext& context, std::string path,
                                                     LedgerHeader header) {
  const std::string record = encode_header(header);
  auto opened = co_await context.blocking_pool.run([&]() -> Result<int> {
    std::error_code ignored;
    if (const auto folder = std::filesystem::path(path).parent_path(); !folder.empty())
      std::filesystem::create_directories(folder, ignored);
    DISKFERRY_TRY(const int fd, open_locked(path, O_CREAT));
    Result<void> written;
    if (::ftruncate(fd, 0) != 0) written = unexpected(errno_error(errno, "empty ledger", printable(path)));
    // Not synced yet: the first append does that, before anything depends on it.
    if (written) written = write_all(fd, record, 0, path);
    if (!written) {
      ::close(fd);
      ::unlink(path.c_str());
      return unexpected(std::move(written).error());
    }
    return fd;
  });
  if (!opened) co_return unexpected(std::move(opened).error());
  std::unique_ptr<Ledger> ledger(new Ledger(context, std::move(path), *opened));
  ledger->size_bytes_ = record.size();
  (void)co_await context.blocking_pool.run([&] {
    ledger->reserve();
    return Result<void>{};
  });
  co_return ledger;
}

Task<Result<Ledger::Loaded>> Ledger::load(DriverContext& context, std::string path) {
  co_return co_await context.blocking_pool.run([&]() -> Result<Loaded> {
    DISKFERRY_TRY(const int fd, open_locked(path, 0));
    Loaded loaded{.ledger = std::unique_ptr<Ledger>(new Ledger(context, path, fd)), .header = {}, .done = {}};
    const Mapping file(fd, file_bytes(fd));
    LedgerReader reader(file.bytes());
    auto header = reader.header();
    if (!header) return unexpected(std::move(header).error().object(printable(path)));
    loaded.header = *std::move(header);
    for (auto entries = reader.next(); !entries.empty(); entries = reader.next()) {
      for (const Piece& entry : entries) loaded.done.add(entry.range);
    }
    loaded.ledger->size_bytes_ = reader.valid_bytes();
    loaded.ledger->reserve();
    loaded.ledger->appends_ = 1;  // its name is durable, or nobody would have found it after a power cut
    return loaded;
  });
}

void Ledger::reserve() {
  if (reserved_to_ > size_bytes_ + reserved_bytes / 2) return;
  const std::uint64_t end = size_bytes_ + reserved_bytes;
  if (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(end)) == 0) reserved_to_ = end;
}

Task<Result<void>> Ledger::append(std::vector<Piece> entries) {
  co_return co_await context_.blocking_pool.run([&]() -> Result<void> {
    std::span<const Piece> rest = entries;
    while (!rest.empty()) {
      const auto now = rest.first(std::min(rest.size(), entries_per_record));
      const std::string record = encode_entries(now);
      DISKFERRY_CHECK(write_all(fd_, record, size_bytes_, path_));
      size_bytes_ += record.size();
      rest = rest.subspan(now.size());
    }
    // What a torn record of an earlier life left behind must not follow ours. Not without need: it would give
    // back what is reserved.
    const bool has_more = file_bytes(fd_) > size_bytes_;
    if ((has_more && ::ftruncate(fd_, static_cast<off_t>(size_bytes_)) != 0) || ::fdatasync(fd_) != 0)
      return unexpected(errno_error(errno, "sync ledger", printable(path_)));
    // Where it cannot be, a power cut may take the name away, and the copy begins again: no harm.
    if (appends_++ == 0) (void)sync_folder_of(path_);
    reserve();
    return {};
  });
}

Task<Result<void>> Ledger::replay(Visit visit) {
  const Mapping file(fd_, size_bytes_);
  LedgerReader reader(file.bytes());
  DISKFERRY_CO_CHECK(reader.header());
  for (auto entries = reader.next(); !entries.empty(); entries = reader.next())
    DISKFERRY_CO_CHECK(co_await visit(std::move(entries)));
  co_return Result<void>{};
}

Task<Result<void>> Ledger::remove() {
  co_return co_await context_.blocking_pool.run([&]() -> Result<void> {
    if (::unlink(path_.c_str()) != 0 && errno != ENOENT)
      return unexpected(errno_error(errno, "remove ledger", printable(path_)));
    return {};
  });
}

std::string ledger_path(const ImageUri& target) {
  struct stat found{};
  const bool is_special =
      target.is_file() && ::stat(target.path().c_str(), &found) == 0 && !S_ISREG(found.st_mode);
  if (target.is_file() && !is_special) return target.path() + ".diskferry-ledger";
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder = state != nullptr && *state == '/' ? std::string(state)
                       : home != nullptr && *home != 0   ? std::string(home) + "/.local/state"
                                                         : std::string("/var/tmp");
  const std::string name = target.to_string();
  return fmt::format("{}/diskferry/{:016x}.ledger", folder, XXH3_64bits(name.data(), name.size()));
}

}  // namespace diskferry
