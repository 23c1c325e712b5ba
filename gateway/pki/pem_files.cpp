// See the header.
#include "gateway/pki/pem_files.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/durable_file.hpp"

#include <array>
#include <cerrno>
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

Result<void> make_folder(const std::string& folder) {
  std::error_code problem;
  if (const auto parent = std::filesystem::path(folder).parent_path(); !parent.empty())
    std::filesystem::create_directories(parent, problem);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return unexpected(errno_of("make folder", folder));
  return {};
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
    DISKFERRY_TRY(NewFile made, NewFile::create(folder + "/" + file.name, file.is_secret ? 0600 : 0644,
                                                fmt::format(".{}.new", ::getpid())));
    DISKFERRY_CHECK(made.write(file.text));
    DISKFERRY_CHECK(made.finish());
    written.push_back(std::move(made));
  }
  for (NewFile& file : written) DISKFERRY_CHECK(file.give_name(replace));
  // Where it cannot be: a power cut may take the files away, and they are made again.
  (void)sync_folder(folder);
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
