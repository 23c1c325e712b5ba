// See the header. All calls on the blocking pool.
#include "gateway/move/move_record.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "drivers/support/durable_file.hpp"
#include "gateway/move/json_fields.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry {
namespace {

constexpr std::size_t record_bytes_max = 1u << 20;

Result<void> replace_file(const std::string& path, std::string_view text) {
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
  return replace_durably(path, text);
}

Result<std::string> read_whole(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return unexpected(errno_error(errno, "read", printable(path)));
  std::string text(record_bytes_max + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int problem = errno;
      ::close(fd);
      return unexpected(errno_error(problem, "read", printable(path)));
    }
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  ::close(fd);
  if (size > record_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "read", printable(path)).why("it is longer than 1 MiB"));
  text.resize(size);
  return text;
}

}  // namespace

Task<Result<void>> write_durably(DriverContext& context, std::string path, std::string text) {
  co_return co_await context.blocking_pool.run([&] { return replace_file(path, text); });
}

Task<Result<std::string>> read_small_file(DriverContext& context, std::string path) {
  co_return co_await context.blocking_pool.run([&] { return read_whole(path); });
}

Task<Result<void>> remove_durably(DriverContext& context, std::string path) {
  co_return co_await context.blocking_pool.run([&]() -> Result<void> {
    if (::unlink(path.c_str()) != 0) {
      if (errno == ENOENT) return {};
      return unexpected(errno_error(errno, "remove", printable(path)));
    }
    return sync_folder_of(path);
  });
}

namespace {

constexpr unsigned record_version = 1;

/// As it stands in the file: the request is the text of another room's making.
struct StoredDisk {
  std::string request{};
  TargetDiskRecord record{};
};
struct StoredDisks {
  unsigned version = 0;
  std::vector<StoredDisk> disks{};
};

template <class Fields>
void list_fields(Fields& fields, ValueOf<StoredDisk> auto& disk) {
  fields.take("request", disk.request);
  fields.take("client", disk.record.client);
  fields.take("created", disk.record.was_created);
  fields.take("left", disk.record.is_left);
  fields.take("kept", disk.record.is_kept);
  fields.take("identity", disk.record.identity);
}

template <class Fields>
void list_fields(Fields& fields, ValueOf<StoredDisks> auto& stored) {
  fields.take("version", stored.version);
  fields.take_list("disks", stored.disks);
}

}  // namespace

std::string to_json(const std::vector<TargetDiskRecord>& disks) {
  StoredDisks stored{.version = record_version};
  for (const TargetDiskRecord& disk : disks)
    stored.disks.push_back({.request = to_json(disk.request), .record = disk});
  return write_json(stored);
}

Result<std::vector<TargetDiskRecord>> parse_target_records(std::string_view text) {
  DISKFERRY_TRY(StoredDisks stored, read_json<StoredDisks>(text, "the record of a move"));
  if (stored.version != record_version)
    return unexpected(
        fail(ErrorKind::unsupported, "read the record of a move").why("it is of another version"));
  std::vector<TargetDiskRecord> disks;
  for (StoredDisk& disk : stored.disks) {
    DISKFERRY_TRY(disk.record.request, parse_target_disk_request(disk.request));
    disks.push_back(std::move(disk.record));
  }
  return disks;
}

}  // namespace diskferry
