// See file_calls.hpp.
#include "drivers/file/file_calls.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <memory>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

namespace diskferry {

Error call_error(int error_number, const char* operation, const std::string& name) {
  ErrorKind kind = kind_of_errno(error_number);
  std::string remedy;
  switch (error_number) {
    case ENODEV:
    case ENXIO:
      kind = ErrorKind::gone;  // a disk that was pulled, a path that failed for good
      break;
    case EINVAL:
    case EBADF:
      kind = ErrorKind::io;  // ranges were checked: it is the storage that does not take it
      break;
    case EFBIG:
      remedy = "raise the file size limit (ulimit -f), or choose another file system";
      break;
    case ENOSPC:
      remedy = "free some space on the file system, or choose another place";
      break;
    case EDQUOT:
      remedy = "raise the quota, or choose another place";
      break;
    default:
      break;
  }
  Error error = fail(kind, operation, name).cause(errno_code(error_number));
  return remedy.empty() ? error : std::move(error).remedy(std::move(remedy));
}

Error transfer_error(int error_number, const char* operation, const std::string& name, Range range) {
  return call_error(error_number, operation, name).at(range.offset, range.length);
}

namespace {
Error shorter_error(const std::string& name, Range range) {
  return fail(ErrorKind::io, "read", name)
      .why("the file ends before this point: it was made shorter while it is in use")
      .at(range.offset, range.length);
}
}  // namespace

Result<void> read_all(FileReference file, std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::pread(file.fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unexpected(transfer_error(errno, "read", file.name, {offset, into.size()}));
    if (got == 0) return unexpected(shorter_error(file.name, {offset, into.size()}));
    offset += static_cast<std::uint64_t>(got);
    into = into.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

Result<void> read_all_direct(FileReference file, std::uint64_t offset, std::span<std::byte> into,
                             std::uint32_t unit_bytes) {
  constexpr std::uint64_t scratch_bytes = 1 << 20;
  const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(unit_bytes, scratch_bytes),
                                                            &std::free);
  if (!scratch) return unexpected(transfer_error(ENOMEM, "read", file.name, {offset, into.size()}));
  while (!into.empty()) {
    const std::uint64_t first = align_down(offset, unit_bytes);
    const std::uint64_t asked = std::min(align_up(offset + into.size(), unit_bytes) - first, scratch_bytes);
    const ssize_t got = ::pread(file.fd, scratch.get(), asked, static_cast<off_t>(first));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unexpected(transfer_error(errno, "read", file.name, {offset, into.size()}));
    const std::uint64_t skipped = offset - first;
    if (static_cast<std::uint64_t>(got) <= skipped)
      return unexpected(shorter_error(file.name, {offset, into.size()}));
    const std::size_t now = std::min<std::size_t>(static_cast<std::size_t>(got) - skipped, into.size());
    std::memcpy(into.data(), static_cast<const std::byte*>(scratch.get()) + skipped, now);
    offset += now;
    into = into.subspan(now);
  }
  return {};
}

Result<void> write_all(FileReference file, std::uint64_t offset, std::span<const std::byte> from,
                       int rwf_flags) {
  while (!from.empty()) {
    // Durable writes stay whole: each piece would wait for storage.
    const bool is_whole = file.is_direct || rwf_flags != 0;
    const iovec part{const_cast<std::byte*>(from.data()),
                     is_whole ? from.size() : std::min(from.size(), write_piece_bytes)};
    const ssize_t put = rwf_flags == 0
                            ? ::pwrite(file.fd, part.iov_base, part.iov_len, static_cast<off_t>(offset))
                            : ::pwritev2(file.fd, &part, 1, static_cast<off_t>(offset), rwf_flags);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return unexpected(transfer_error(errno, "write", file.name, {offset, from.size()}));
    if (put == 0) return unexpected(transfer_error(EIO, "write", file.name, {offset, from.size()}));
    offset += static_cast<std::uint64_t>(put);
    from = from.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> sync_data(FileReference file) {
  int failed = 0;
  do {
    failed = ::fdatasync(file.fd) == 0 ? 0 : errno;
  } while (failed == EINTR);
  if (failed != 0) return unexpected(call_error(failed, "flush", file.name));
  return {};
}

namespace {
bool is_not_offered(int error_number) {
  return error_number == EOPNOTSUPP || error_number == ENOSYS || error_number == ENOTTY ||
         error_number == ENODEV || error_number == EPERM || error_number == ETXTBSY;
}
}  // namespace

Result<Attempt> try_fallocate(FileReference file, int mode, Range range) {
  while (::fallocate(file.fd, mode, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) !=
         0) {
    if (errno == EINTR) continue;
    if (is_not_offered(errno)) return Attempt::not_offered;
    if (errno == EINVAL) return Attempt::not_here;
    return unexpected(transfer_error(errno, "write zeros", file.name, range));
  }
  return Attempt::done;
}

Result<Attempt> try_discard_blocks(FileReference file, Range range) {
  std::uint64_t arguments[2] = {range.offset, range.length};
  while (::ioctl(file.fd, BLKDISCARD, arguments) != 0) {
    if (errno == EINTR) continue;
    if (is_not_offered(errno)) return Attempt::not_offered;
    if (errno == EINVAL) return Attempt::not_here;
    return unexpected(transfer_error(errno, "discard", file.name, range));
  }
  return Attempt::done;
}

namespace {
constexpr Extent data_extent(std::uint64_t from, std::uint64_t to) {
  return {.offset = from, .length = to - from, .host_offset = from};
}
constexpr Extent hole_extent(std::uint64_t from, std::uint64_t to) {
  return {.offset = from, .length = to - from, .reads_zero = true, .is_hole = true};
}
}  // namespace

Result<std::vector<Extent>> list_extents(FileReference file, Range range, std::size_t extents_max) {
  std::vector<Extent> found;
  std::uint64_t at = range.offset;
  while (at < range.end() && found.size() < extents_max) {
    const off_t data = ::lseek(file.fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) {  // not offered here, or it failed: what is there must be read
      found.push_back(data_extent(at, range.end()));
      break;
    }
    const off_t file_end = data < 0 ? ::lseek(file.fd, 0, SEEK_END) : 0;
    if (data < 0 && file_end >= 0 && static_cast<std::uint64_t>(file_end) < range.end()) {
      // No more data, and the file ends inside the range: only up to its end is it a hole.
      const auto end = std::max(at, static_cast<std::uint64_t>(file_end));
      if (end > at) found.push_back(hole_extent(at, end));
      if (end < range.end() && found.size() < extents_max) found.push_back(data_extent(end, range.end()));
      break;
    }
    const std::uint64_t next =
        data < 0 ? range.end() : std::min(static_cast<std::uint64_t>(data), range.end());
    if (next > at) {
      found.push_back(hole_extent(at, next));
      at = next;
      continue;
    }
    const off_t hole = ::lseek(file.fd, static_cast<off_t>(at), SEEK_HOLE);
    // A hole "before" the data: it changed in between, or the file system errs. Call it data.
    const std::uint64_t end = hole < 0 || static_cast<std::uint64_t>(hole) <= at
                                  ? range.end()
                                  : std::min(static_cast<std::uint64_t>(hole), range.end());
    found.push_back(data_extent(at, end));
    at = end;
  }
  return found;
}

}  // namespace diskferry
