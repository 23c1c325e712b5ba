#include "gateway/mirror/difference_file.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/file/file_descriptor.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <random>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace {

constexpr std::uint64_t magic = 0x444664696666656cu;  // "DFdiffel"
constexpr std::uint64_t version = 1;
constexpr std::size_t header_bytes = 4096;

struct Header {
  std::uint64_t magic;
  std::uint64_t version;
  std::uint64_t size_bytes;
  std::uint64_t granule_bytes;
  std::array<std::uint64_t, 2> key;
  std::array<std::uint64_t, 2> boot;
  std::array<std::uint64_t, 2> checksum;  // of all before
};

std::array<std::uint64_t, 2> hash_of(const void* from, std::size_t bytes) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(from, bytes);
  return {hash.high64, hash.low64};
}

/// Differs after each start of the machine.
/// One that cannot be read is never the same.
std::array<std::uint64_t, 2> this_boot() {
  std::string name;
  if (!(std::ifstream("/proc/sys/kernel/random/boot_id") >> name)) {
    std::random_device random;
    return {random(), random()};
  }
  return hash_of(name.data(), name.size());
}

Header header_for(DifferenceShape shape, const std::string& key) {
  Header header{.magic = magic,
                .version = version,
                .size_bytes = shape.size_bytes,
                .granule_bytes = shape.granule_bytes,
                .key = hash_of(key.data(), key.size()),
                .boot = this_boot(),
                .checksum = {}};
  header.checksum = hash_of(&header, offsetof(Header, checksum));
  return header;
}

std::size_t bytes_for(DifferenceShape shape) noexcept {
  return header_bytes + GranuleMap::words_for(shape.granules()) * sizeof(std::uint64_t);
}

Error file_error(int number, std::string operation, const std::string& path) {
  return errno_error(number, std::move(operation), printable(path));
}

Error unlike(const std::string& path, std::string why) {
  return fail(ErrorKind::mismatch, "read what differs", printable(path)).why(std::move(why));
}

Result<void> check(const Header& found, DifferenceShape shape, const std::string& key,
                   const std::string& path) {
  const Header wanted = header_for(shape, key);
  if (found.magic != magic || found.checksum != hash_of(&found, offsetof(Header, checksum)))
    return unexpected(fail(ErrorKind::corrupt, "read what differs", printable(path)).why("it is damaged"));
  if (found.version != version) return unexpected(unlike(path, "another version has written it"));
  if (found.size_bytes != wanted.size_bytes || found.granule_bytes != wanted.granule_bytes ||
      found.key != wanted.key)
    return unexpected(unlike(path, "it is of another disk"));
  if (found.boot != wanted.boot) return unexpected(unlike(path, "the machine has been down since"));
  return {};
}

}  // namespace

DifferenceFile::~DifferenceFile() {
  (void)::munmap(mapped_, bytes_);
}

std::span<std::uint64_t> DifferenceFile::words() const noexcept {
  return {reinterpret_cast<std::uint64_t*>(mapped_ + header_bytes),
          (bytes_ - header_bytes) / sizeof(std::uint64_t)};
}

Result<std::unique_ptr<DifferenceFile>> DifferenceFile::map(int fd, DifferenceShape shape,
                                                            const std::string& path) {
  const std::size_t bytes = bytes_for(shape);
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return unexpected(file_error(errno, "map", path));
  return std::unique_ptr<DifferenceFile>(new DifferenceFile(static_cast<std::byte*>(mapped), bytes));
}

Result<std::unique_ptr<DifferenceFile>> DifferenceFile::create(const std::string& path, DifferenceShape shape,
                                                               const std::string& key) {
  const std::string beside = path + ".new";
  const FileDescriptor fd(
      ::open(beside.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (fd.get() < 0) return unexpected(file_error(errno, "create", beside));
  const auto bytes = static_cast<off_t>(bytes_for(shape));
  int failed = 0;
  do failed = ::posix_fallocate(fd.get(), 0, bytes);
  while (failed == EINTR);
  if (failed != 0) {
    (void)::unlink(beside.c_str());
    return unexpected(file_error(failed, "reserve", beside));
  }
  DISKFERRY_TRY(auto file, map(fd.get(), shape, beside));
  std::memset(file->words().data(), 0xff, file->words().size_bytes());
  const Header header = header_for(shape, key);
  std::memcpy(file->mapped_, &header, sizeof header);
  if (::rename(beside.c_str(), path.c_str()) != 0) return unexpected(file_error(errno, "rename", beside));
  return file;
}

Result<std::unique_ptr<DifferenceFile>> DifferenceFile::open(const std::string& path, DifferenceShape shape,
                                                             const std::string& key) {
  const FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return unexpected(file_error(errno, "open", path));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return unexpected(file_error(errno, "look at", path));
  Header found{};
  if (::pread(fd.get(), &found, sizeof found, 0) != sizeof found) found = {};
  DISKFERRY_CHECK(check(found, shape, key, path));
  if (!std::cmp_equal(status.st_size, bytes_for(shape)))
    return unexpected(fail(ErrorKind::corrupt, "read what differs", printable(path)).why("it was cut"));
  return map(fd.get(), shape, path);
}

}  // namespace diskferry
