// How this host sees a file, a block device or a network disk. Blocks on the blocking pool only; reads
// headers of nothing and writes nothing but the marker.
#include "diskferry/image_uri.hpp"
#include "drivers/file/file_descriptor.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/world_wide_name.hpp"
#include "gateway/move/storage_view.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <netdb.h>
#include <random>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <xxhash.h>

namespace diskferry {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view marker_prefix = ".diskferry-proof-";
constexpr std::size_t random_digits_max = 64;
constexpr std::size_t small_file_bytes_max = 256;
/// Of a network disk: enough that two disks which differ in a tenth of their blocks do not pass as one.
constexpr unsigned sample_count = 64;
constexpr std::uint32_t sample_bytes_min = 4096;

bool is_hexadecimal(std::string_view text) {
  return !text.empty() && text.size() <= random_digits_max &&
         std::ranges::all_of(text, [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
}

/// A peer names the file and its content: only what a proof needs is let through.
Result<void> check_question(const StorageQuestion& question) {
  const auto refuse = [](std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "look at the storage").why(std::move(why)));
  };
  const bool has_marker = !question.marker.empty();
  if (has_marker && (!question.marker.starts_with(marker_prefix) ||
                     !is_hexadecimal(std::string_view(question.marker).substr(marker_prefix.size()))))
    return refuse("that is no marker");
  if (question.act == StorageQuestion::Act::look) return {};
  if (!has_marker || !is_hexadecimal(question.text)) return refuse("a marker has a name and a text");
  return {};
}

std::string read_small(const std::string& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return {};
  std::string text(small_file_bytes_max, '\0');
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// Where two kernels that mount one of these destroy it: a marker that is seen on both hosts proves nothing
/// then but that somebody did.
std::string single_kernel_file_system(const std::string& path) {
  struct statfs found{};
  if (::statfs(path.c_str(), &found) != 0) return {};
  switch (static_cast<std::uint64_t>(found.f_type)) {
    case 0xef53:
      return "ext4";
    case 0x58465342:
      return "xfs";
    case 0x9123683e:
      return "btrfs";
    case 0xf2f52010:
      return "f2fs";
    case 0x2fc12fc1:
      return "zfs";
    case 0x01021994:
      return "tmpfs";
    default:
      return {};
  }
}

Result<void> write_marker(const std::string& path, std::string_view text) {
  // Readable for all, as the other host's root may be nobody here. Its text is worth nothing to anybody else.
  const FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                                 S_IRUSR | S_IRGRP | S_IROTH));
  if (!fd) return unexpected(errno_error(errno, "write a file beside it", printable(path)));
  const ssize_t put = ::write(fd.get(), text.data(), text.size());
  if (put == static_cast<ssize_t>(text.size()) && ::fsync(fd.get()) == 0) return {};
  const int failed = put < 0 ? errno : ENOSPC;
  ::unlink(path.c_str());
  return unexpected(errno_error(failed, "write a file beside it", printable(path)));
}

void look_at_marker(const StorageQuestion& question, const std::string& path, const FileIdentity& file,
                    StorageView& view) {
  view.marker_text = read_small(path);
  struct stat found{};
  if (view.marker_text.empty() || ::lstat(path.c_str(), &found) != 0) return;
  view.is_marker_beside = S_ISREG(found.st_mode) && found.st_dev == file.device;
  if (question.act == StorageQuestion::Act::remove && view.marker_text == question.text)
    ::unlink(path.c_str());
}

StorageView view_file(const StorageQuestion& question, const ImageUri& uri) {
  StorageView view;
  std::error_code failed;
  const fs::path path = fs::canonical(uri.path(), failed);
  if (failed == std::errc::no_such_file_or_directory) return view;
  auto file =
      failed ? Result<FileIdentity>(unexpected(errno_error(failed.value(), "open", printable(uri.path()))))
             : file_identity(path.string());
  if (!file) {
    view.problem = file.error().message();
    return view;
  }
  view.exists = true;
  view.size_bytes = file->size_bytes;
  view.inode = file->inode;
  view.is_block_device = file->is_block_device;
  view.kernel = read_small("/proc/sys/kernel/random/boot_id");
  if (view.is_block_device) {
    view.device_name = layered_device_name(
        "/sys/dev/block", fmt::format("{}:{}", gnu_dev_major(file->device), gnu_dev_minor(file->device)));
    return view;
  }
  view.file_system = single_kernel_file_system(path.string());
  if (question.marker.empty()) return view;
  const std::string marker = (path.parent_path() / question.marker).string();
  if (question.act == StorageQuestion::Act::write) {
    if (auto written = write_marker(marker, question.text); !written) {
      view.problem = written.error().message();
      return view;
    }
  }
  look_at_marker(question, marker, *file, view);
  return view;
}

std::vector<std::string> addresses_of(const std::string& host) {
  std::vector<std::string> all;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (host.empty() || ::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return all;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    std::string text(NI_MAXHOST, '\0');
    if (::getnameinfo(each->ai_addr, each->ai_addrlen, text.data(), static_cast<socklen_t>(text.size()),
                      nullptr, 0, NI_NUMERICHOST) == 0)
      all.emplace_back(text.c_str());
  }
  ::freeaddrinfo(found);
  std::ranges::sort(all);
  all.erase(std::ranges::unique(all).begin(), all.end());
  return all;
}

/// A hash of blocks all over the device, the same ones for the same seed and size.
Task<Result<std::string>> take_samples(BlockDevice& device, std::uint64_t seed) {
  const std::uint32_t bytes = std::max(sample_bytes_min, device.info().block_bytes);
  const std::uint64_t blocks = device.size_bytes() / bytes;
  std::vector<std::byte> sample(bytes);
  XXH128_hash_t hash{};
  std::mt19937_64 random(seed);
  for (unsigned i = 0; blocks != 0 && i < sample_count; ++i) {
    // The first one always: what tells disks apart most often is how they begin.
    const std::uint64_t block = i == 0 ? 0 : random() % blocks;
    DISKFERRY_CO_CHECK(co_await device.read(block * bytes, sample));
    hash = XXH3_128bits_withSeed(sample.data(), sample.size(), hash.low64 ^ hash.high64);
  }
  co_return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

Task<StorageView> view_network(DriverContext& context, const StorageQuestion& question, const ImageUri& uri) {
  StorageView view;
  view.addresses = co_await context.blocking_pool.run([&] { return addresses_of(uri.host()); });
  auto device = co_await open_storage(context, uri, {});
  if (!device) {
    view.is_reached = device.error().kind() == ErrorKind::not_found;
    view.problem = device.error().message();
    co_return view;
  }
  view.exists = view.is_reached = true;
  view.size_bytes = (*device)->size_bytes();
  auto samples = co_await take_samples(**device, question.sample_seed);
  (void)co_await (*device)->close();
  if (samples)
    view.samples = *std::move(samples);
  else
    view.problem = samples.error().message();
  co_return view;
}

}  // namespace

std::string marker_name(std::string_view random) {
  return std::string(marker_prefix) + std::string(random);
}

Task<Result<StorageView>> view_storage(DriverContext& context, StorageQuestion question) {
  DISKFERRY_CO_CHECK(check_question(question));
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(question.uri));
  if (!uri.is_file()) co_return co_await view_network(context, question, uri);
  co_return co_await context.blocking_pool.run([&] { return view_file(question, uri); });
}

}  // namespace diskferry
