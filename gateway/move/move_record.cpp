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

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
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

std::string to_json(const std::vector<TargetDiskRecord>& disks) {
  json::array all;
  for (const TargetDiskRecord& disk : disks)
    all.push_back({{"request", to_json(disk.request)},
                   {"client", disk.client},
                   {"created", disk.was_created},
                   {"left", disk.is_left},
                   {"kept", disk.is_kept},
                   {"identity", disk.identity}});
  return json::serialize(json::object{{"version", 1}, {"disks", std::move(all)}});
}

Result<std::vector<TargetDiskRecord>> parse_target_records(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the record of a move"));
  std::vector<TargetDiskRecord> disks;
  unsigned version = 0;
  JsonFields fields(object, "the record of a move");
  fields.take("version", version);
  fields.each("disks", [&](const json::object& each) -> Result<void> {
    TargetDiskRecord disk;
    std::string request;
    JsonFields own(each, "a disk in the record of a move");
    own.take("request", request);
    own.take("client", disk.client);
    own.take("created", disk.was_created);
    own.take("left", disk.is_left);
    own.take("kept", disk.is_kept);
    own.take("identity", disk.identity);
    DISKFERRY_CHECK(own.finish());
    DISKFERRY_TRY(disk.request, parse_target_disk_request(request));
    disks.push_back(std::move(disk));
    return {};
  });
  DISKFERRY_CHECK(fields.finish());
  if (version != 1)
    return unexpected(
        fail(ErrorKind::unsupported, "read the record of a move").why("it is of another version"));
  return disks;
}

}  // namespace diskferry
