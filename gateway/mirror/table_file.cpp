// See table_file.hpp. Calls that may block run on the blocking pool.
#include "gateway/mirror/table_file.hpp"

#include "diskferry/units.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/durable_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace {

constexpr std::uint64_t magic = 0x444677696e746231;  // "DFwintb1"
constexpr std::uint32_t version = 1;
constexpr std::size_t header_bytes = 56;
constexpr std::size_t zero_range_bytes = 16;
constexpr std::size_t entry_bytes = 24;
constexpr std::size_t checksum_bytes = 16;
constexpr std::size_t chunk_bytes = 256 * kib;
constexpr std::size_t entries_at_once = 4096;

struct Header {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 0;
  std::uint32_t identity_bytes = 0;
  std::uint64_t seed = 0;
  std::uint64_t zero_ranges = 0;
  std::uint64_t entries = 0;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

/// The running hash of a file.
class Checksum {
 public:
  Checksum() : state_(XXH3_createState()) {
    if (!state_) throw std::bad_alloc();
    XXH3_128bits_reset(state_.get());
  }
  void add(std::span<const std::byte> bytes) noexcept {
    XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
  }
  std::array<std::byte, checksum_bytes> value() const noexcept {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    std::array<std::byte, checksum_bytes> bytes;
    store_big(bytes.data(), hash.high64);
    store_big(bytes.data() + 8, hash.low64);
    return bytes;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

Error file_error(int number, std::string operation, const std::string& path) {
  return errno_error(number, std::move(operation), printable(path));
}

Error corrupt_error(const std::string& path, std::string why) {
  return fail(ErrorKind::corrupt, "read table", printable(path)).why(std::move(why));
}

// --- writing ----------------------------------------------------------------------------------------------

class Writer {
 public:
  explicit Writer(NewFile& file) : file_(file) { buffer_.reserve(chunk_bytes); }

  template <class T>
  Result<void> put(T value) {
    std::array<std::byte, sizeof(T)> bytes;
    store_big(bytes.data(), value);
    return put(std::span<const std::byte>(bytes));
  }
  Result<void> put(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > chunk_bytes) DISKFERRY_CHECK(write_out());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return {};
  }
  Result<void> finish() {
    DISKFERRY_CHECK(write_out());
    DISKFERRY_CHECK(put(std::span<const std::byte>(checksum_.value())));
    DISKFERRY_CHECK(write_out());
    return file_.finish();
  }

 private:
  Result<void> write_out() {
    checksum_.add(buffer_);
    DISKFERRY_CHECK(file_.write(std::span<const std::byte>(buffer_)));
    buffer_.clear();
    return {};
  }

  NewFile& file_;
  std::vector<std::byte> buffer_;
  Checksum checksum_;
};

std::uint64_t count_entries(const BlockTable& table) {
  std::vector<BlockTable::Entry> some;
  std::uint64_t count = 0;
  std::uint64_t cursor = 0;
  for (bool more = true; more;) {
    some.clear();
    more = table.durable_entries(cursor, entries_at_once, some);
    count += some.size();
  }
  return count;
}

Result<void> write_content(Writer& writer, const BlockTable& table, const std::string& identity) {
  const std::vector<Range> zero = table.durable_zero_blocks();
  DISKFERRY_CHECK(writer.put(magic));
  DISKFERRY_CHECK(writer.put(version));
  DISKFERRY_CHECK(writer.put(table.shape().size_bytes));
  DISKFERRY_CHECK(writer.put(table.shape().block_bytes));
  DISKFERRY_CHECK(writer.put(static_cast<std::uint32_t>(identity.size())));
  DISKFERRY_CHECK(writer.put(std::uint32_t{0}));
  DISKFERRY_CHECK(writer.put(table.seed()));
  DISKFERRY_CHECK(writer.put(static_cast<std::uint64_t>(zero.size())));
  DISKFERRY_CHECK(writer.put(count_entries(table)));
  DISKFERRY_CHECK(writer.put(as_bytes(identity)));
  for (const Range& blocks : zero) {
    DISKFERRY_CHECK(writer.put(blocks.offset));
    DISKFERRY_CHECK(writer.put(blocks.length));
  }
  std::vector<BlockTable::Entry> some;
  std::uint64_t cursor = 0;
  for (bool more = true; more;) {
    some.clear();
    more = table.durable_entries(cursor, entries_at_once, some);
    for (const BlockTable::Entry& entry : some) {
      DISKFERRY_CHECK(writer.put(entry.block));
      DISKFERRY_CHECK(writer.put(entry.hash.high));
      DISKFERRY_CHECK(writer.put(entry.hash.low));
    }
  }
  return writer.finish();
}

Result<void> save_now(const BlockTable& table, const std::string& path, const std::string& identity) {
  if (identity.size() > target_identity_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "save table", printable(path)).why("the target's identity is too long"));
  DISKFERRY_TRY(NewFile file, NewFile::create(path, 0600, ".unfinished"));
  Writer writer(file);
  DISKFERRY_CHECK(write_content(writer, table, identity));
  DISKFERRY_CHECK(file.give_name());
  return sync_folder_of(path);
}

// --- reading ----------------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(int fd, const std::string& path) : fd_(fd), path_(path), buffer_(chunk_bytes) {}

  /// The next bytes; valid until the next call. Errors: corrupt when the file ends before.
  Result<std::span<const std::byte>> next(std::size_t bytes) {
    if (end_ - begin_ < bytes) DISKFERRY_CHECK(fill(bytes));
    const std::span<const std::byte> found(buffer_.data() + begin_, bytes);
    begin_ += bytes;
    checksum_.add(found);
    return found;
  }
  Result<void> check_end() {
    const auto computed = checksum_.value();
    DISKFERRY_TRY(const auto stored, next(checksum_bytes));
    if (!std::ranges::equal(computed, stored))
      return unexpected(corrupt_error(path_, "its checksum is wrong"));
    return {};
  }

 private:
  Result<void> fill(std::size_t bytes) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    while (end_ < bytes) {
      const ssize_t got = ::read(fd_, buffer_.data() + end_, buffer_.size() - end_);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return unexpected(file_error(errno, "read table", path_));
      if (got == 0) return unexpected(corrupt_error(path_, "it ends too early"));
      end_ += static_cast<std::size_t>(got);
    }
    return {};
  }

  const int fd_;
  const std::string& path_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  Checksum checksum_;
};

Result<Header> read_header(Reader& reader, const std::string& path) {
  DISKFERRY_TRY(const auto bytes, reader.next(header_bytes));
  const std::byte* const at = bytes.data();
  if (load_big<std::uint64_t>(at) != magic) return unexpected(corrupt_error(path, "it is no table"));
  if (load_big<std::uint32_t>(at + 8) != version)
    return unexpected(
        fail(ErrorKind::unsupported, "read table", printable(path)).why("it was written by another version"));
  return Header{.size_bytes = load_big<std::uint64_t>(at + 12),
                .block_bytes = load_big<std::uint32_t>(at + 20),
                .identity_bytes = load_big<std::uint32_t>(at + 24),
                .seed = load_big<std::uint64_t>(at + 32),
                .zero_ranges = load_big<std::uint64_t>(at + 40),
                .entries = load_big<std::uint64_t>(at + 48)};
}

/// Every number bounded before anything is added up.
Result<void> check_header(const Header& header, std::uint64_t file_bytes, const TableKey& key,
                          const std::string& path) {
  if (header.size_bytes != key.shape.size_bytes || header.block_bytes != key.shape.block_bytes)
    return unexpected(
        fail(ErrorKind::mismatch, "read table", printable(path)).why("it is of a disk of another size"));
  const std::uint64_t blocks = divide_up(header.size_bytes, header.block_bytes);
  constexpr std::uint64_t count_max = std::uint64_t{1} << 40;
  if (header.identity_bytes > target_identity_bytes_max || header.zero_ranges > std::min(blocks, count_max) ||
      header.entries > std::min(blocks, count_max) ||
      file_bytes != header_bytes + header.identity_bytes + header.zero_ranges * zero_range_bytes +
                        header.entries * entry_bytes + checksum_bytes)
    return unexpected(corrupt_error(path, "its parts do not add up to its length"));
  return {};
}

Result<std::unique_ptr<BlockTable>> read_content(int fd, std::uint64_t file_bytes, const TableKey& key,
                                                 const std::string& path) {
  Reader reader(fd, path);
  DISKFERRY_TRY(const Header header, read_header(reader, path));
  DISKFERRY_CHECK(check_header(header, file_bytes, key, path));
  DISKFERRY_TRY(const auto identity, reader.next(header.identity_bytes));
  if (!std::ranges::equal(identity, as_bytes(key.target_identity)))
    return unexpected(
        fail(ErrorKind::mismatch, "read table", printable(path)).why("it is of another target"));
  auto table = std::make_unique<BlockTable>(key.shape, header.seed, false);
  for (std::uint64_t i = 0; i < header.zero_ranges; ++i) {
    DISKFERRY_TRY(const auto bytes, reader.next(zero_range_bytes));
    const Range blocks{load_big<std::uint64_t>(bytes.data()), load_big<std::uint64_t>(bytes.data() + 8)};
    if (blocks.empty() || !is_inside(blocks, table->blocks()))
      return unexpected(corrupt_error(path, "a range lies beyond the end of the disk"));
    table->load_zero(blocks);
  }
  for (std::uint64_t i = 0; i < header.entries; ++i) {
    DISKFERRY_TRY(const auto bytes, reader.next(entry_bytes));
    const BlockTable::Entry entry{
        load_big<std::uint64_t>(bytes.data()),
        {load_big<std::uint64_t>(bytes.data() + 8), load_big<std::uint64_t>(bytes.data() + 16)}};
    if (entry.block >= table->blocks())
      return unexpected(corrupt_error(path, "a block lies beyond the end of the disk"));
    table->load_entry(entry);
  }
  DISKFERRY_CHECK(reader.check_end());
  return table;
}

Result<std::unique_ptr<BlockTable>> load_now(const std::string& path, const TableKey& key) {
  // O_NONBLOCK: a pipe of that name must not hold us up.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0) return unexpected(file_error(errno, "open table", path));
  struct stat found{};
  if (::fstat(fd.get(), &found) != 0) return unexpected(file_error(errno, "look at table", path));
  if (!S_ISREG(found.st_mode)) return unexpected(corrupt_error(path, "it is no regular file"));
  DISKFERRY_TRY(auto table, read_content(fd.get(), static_cast<std::uint64_t>(found.st_size), key, path));
  // From here on its content may become untrue at any moment.
  if (::unlink(path.c_str()) != 0) return unexpected(file_error(errno, "remove table", path));
  DISKFERRY_CHECK(sync_folder_of(path));
  return table;
}

}  // namespace

Task<Result<void>> save_block_table(DriverContext& context, const BlockTable& table, std::string path,
                                    std::string target_identity) {
  co_return co_await context.blocking_pool.run([&]() -> Result<void> {
    try {
      return save_now(table, path, target_identity);
    } catch (const std::bad_alloc&) {
      return unexpected(fail(ErrorKind::too_large, "save table", printable(path)).why("out of memory"));
    }
  });
}

Task<Result<std::unique_ptr<BlockTable>>> load_block_table(DriverContext& context, std::string path,
                                                           TableKey key) {
  co_return co_await context.blocking_pool.run([&]() -> Result<std::unique_ptr<BlockTable>> {
    try {
      return load_now(path, key);
    } catch (const std::bad_alloc&) {
      return unexpected(fail(ErrorKind::too_large, "read table", printable(path)).why("out of memory"));
    }
  });
}

}  // namespace diskferry
