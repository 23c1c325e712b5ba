// What each kind of source needs: which children, what they may do, what they are told.
#include "drivers/foreign/foreign.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/foreign/endpoint.hpp"
#include "drivers/foreign/foreign_device.hpp"
#include "drivers/foreign/landlock.hpp"
#include "drivers/foreign/open_files.hpp"
#include "drivers/foreign/ssh_home.hpp"
#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <span>
#include <unistd.h>
#include <vector>

namespace diskferry::foreign {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t secret_bytes_max = 64U << 10;
/// For QEMU to say that a server did not answer.
constexpr Duration answer_margin = std::chrono::seconds(5);
constexpr std::size_t authorities_bytes_max = 8U << 20;

// --- local files ------------------------------------------------------------------------------------------

struct LocalFile {
  std::string path;  ///< absolute
  std::string real_path;
  bool is_block_device = false;
};

Result<LocalFile> look_at(const ForeignImage& image) {
  std::error_code failed;
  const std::string named = image.real_path.empty() ? image.uri.path() : image.real_path;
  LocalFile file{.path = fs::absolute(named, failed).string(),
                 .real_path = fs::canonical(named, failed).string()};
  if (failed) return unexpected(errno_error(failed.value(), "open", image.uri.to_string()));
  DISKFERRY_TRY(const FileIdentity identity, file_identity(file.real_path));
  file.is_block_device = identity.is_block_device;
  return file;
}

QemuNbdOptions local_child(const ForeignImage& image, const LocalFile& file) {
  return {.name = image.uri.to_string(),
          .image = image_options({.format = image.format, .force_share = image.force_share},
                                 file_node(file.path, file.is_block_device)),
          .path = file.path,
          .confinement = {.files = {file.real_path}, .folders = image.folders, .rights = Rights::reader}};
}

// --- servers ----------------------------------------------------------------------------------------------

Result<std::string> content_of(const std::string& path, std::size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  std::string text(bytes_max + 1, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size())) && !file.eof())
    return unexpected(errno_error(errno == 0 ? EIO : errno, "read", printable(path)));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > bytes_max)
    return unexpected(fail(ErrorKind::too_large, "read", printable(path))
                          .why(fmt::format("more than {} bytes are not taken", bytes_max)));
  return text;
}

/// QEMU takes all of a file for the secret, also the end of the line that editors add.
Result<std::string> secret_of(const std::string& path) {
  DISKFERRY_TRY(std::string text, content_of(path, secret_bytes_max));
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty())
    return unexpected(fail(ErrorKind::invalid_argument, "read", printable(path)).why("the file is empty"));
  return text;
}

Result<void> add_secret(QemuNbdOptions& options, std::vector<std::string>& secrets, std::string_view id,
                        const std::string& path) {
  if (path.empty()) return {};
  DISKFERRY_TRY(std::string secret, secret_of(path));
  const auto fd = first_of_ours + static_cast<int>(secrets.size());
  options.objects.push_back(fmt::format("secret,id={},file=/proc/self/fd/{}", id, fd));
  secrets.push_back(std::move(secret));
  return {};
}

/// Redirections lead to the usual ports, and from https to https only.
std::vector<std::uint16_t> ports_of(const Endpoint& endpoint) {
  if (endpoint.is_ssh()) return {endpoint.port};
  if (endpoint.scheme == "https") return {endpoint.port, 443};
  return {endpoint.port, 80, 443};
}

Result<QemuNbdOptions> web_child(const Endpoint& endpoint) {
  QemuNbdOptions options{.name = endpoint.name,
                         .confinement = {.sockets = Sockets::internet, .rights = Rights::stranger}};
  std::vector<std::string> secrets;
  DISKFERRY_CHECK(add_secret(options, secrets, password_secret, endpoint.password_file));
  DISKFERRY_CHECK(add_secret(options, secrets, cookie_secret, endpoint.cookie_file));
  if (!endpoint.ca_file.empty()) {
    DISKFERRY_TRY(options.confinement.authorities, content_of(endpoint.ca_file, authorities_bytes_max));
    if (options.confinement.authorities.find("-----BEGIN") == std::string::npos)
      return unexpected(fail(ErrorKind::invalid_argument, "read", printable(endpoint.ca_file))
                            .why("no certificate in PEM form is in it"));
  }
  options.passed = [secrets]() -> Result<std::vector<FileDescriptor>> {
    std::vector<FileDescriptor> files;
    for (const std::string& secret : secrets) {
      DISKFERRY_TRY(files.emplace_back(), memory_file(secret));
    }
    return files;
  };
  return options;
}

/// libssh takes our account's home before $HOME, where it can read the list of users: only Landlock makes it
/// look into the folder that we make.
Result<void> check_home_is_ours(const Endpoint& endpoint) {
  if (endpoint.known_hosts.empty() && endpoint.identity.empty()) return {};
  if (landlock_version() > 0) return {};
  return unexpected(
      fail(ErrorKind::unsupported, "open", endpoint.name)
          .why("known-hosts= and identity= need a kernel with Landlock (Linux 5.13, in the list of lsm=): "
               "without it libssh would read ~/.ssh all the same")
          .remedy("put the server's key into ~/.ssh/known_hosts (or name it with host-key=) and ours into "
                  "~/.ssh, and leave these two out"));
}

Result<QemuNbdOptions> ssh_child(const Endpoint& endpoint) {
  DISKFERRY_CHECK(check_home_is_ours(endpoint));
  DISKFERRY_TRY(std::shared_ptr<SshHome> home, SshHome::make(endpoint));
  QemuNbdOptions options{
      .name = endpoint.name,
      // libssh asks for our account's home first: its list is not to be read, nor is root made up.
      .environment = {"HOME=" + home->path(), "SYSTEMD_NSS_BYPASS_SYNTHETIC=1"},
      .confinement = {.files = home->files(), .folders = {home->path()}, .rights = Rights::own}};
  options.confinement.sockets = home->agent().empty() ? Sockets::internet : Sockets::internet_and_unix;
  if (!home->agent().empty()) options.environment.push_back("SSH_AUTH_SOCK=" + home->agent());
  // It lives as long as the child.
  options.passed = [home]() -> Result<std::vector<FileDescriptor>> { return std::vector<FileDescriptor>{}; };
  return options;
}

Result<QemuNbdOptions> server_child(Endpoint endpoint) {
  if (endpoint.is_ssh() && endpoint.user.empty()) endpoint.user = own_user_name();
  if (endpoint.is_ssh() && endpoint.user.empty())
    return unexpected(
        fail(ErrorKind::invalid_argument, "open", endpoint.name)
            .why(fmt::format("the user is missing, and ours ({}) has no name here", ::geteuid()))
            .remedy("write user@ in front of the host"));
  DISKFERRY_TRY(QemuNbdOptions options, endpoint.is_ssh() ? ssh_child(endpoint) : web_child(endpoint));
  options.image = image_options({.format = "raw"}, network_node(endpoint));
  options.keep_trying = endpoint.reconnect_limit;
  options.confinement.ports = ports_of(endpoint);
  return options;
}

/// Parses what `below` serves.
QemuNbdOptions parser_child(const ForeignImage& image, const QemuNbd& below) {
  return {.name = image.uri.to_string(),
          .image = image_options({.format = image.format}, nbd_node(first_of_ours)),
          .confinement = {.rights = Rights::stranger},
          .passed = [&below]() -> Result<std::vector<FileDescriptor>> {
            auto connection = below.connect();
            if (!connection) {
              if (auto dead = below.death()) return unexpected(*std::move(dead));
              return unexpected(std::move(connection).error());
            }
            std::vector<FileDescriptor> passed;
            passed.push_back(*std::move(connection));
            return passed;
          }};
}

ForeignPlan plan_for(const Endpoint& endpoint, unsigned connections) {
  return {.name = endpoint.name,
          .open_limit = endpoint.connect_limit,
          .retry_limit = endpoint.reconnect_limit,
          .restarts_child = endpoint.is_ssh(),
          .is_one_at_a_time = !endpoint.is_ssh(),
          .stall_limit = endpoint.stall_limit,
          .answer_limit = endpoint.stall_limit + answer_margin,
          .connections = endpoint.connections != 0 ? endpoint.connections : connections};
}

// --- opening ----------------------------------------------------------------------------------------------

using Children = std::vector<std::unique_ptr<QemuNbd>>;

Result<Children> start_local(const ForeignImage& image) {
  DISKFERRY_TRY(const LocalFile file, look_at(image));
  Children children;
  DISKFERRY_TRY(children.emplace_back(), QemuNbd::start(local_child(image, file)));
  return children;
}

Result<Children> start_for_server(const ForeignImage& image, const Endpoint& endpoint) {
  DISKFERRY_TRY(QemuNbdOptions options, server_child(endpoint));
  Children children;
  DISKFERRY_TRY(children.emplace_back(), QemuNbd::start(std::move(options)));
  if (image.format == "raw") return children;
  const QemuNbd& below = *children.front();
  DISKFERRY_TRY(children.emplace_back(), QemuNbd::start(parser_child(image, below)));
  return children;
}

Task<Result<std::unique_ptr<ForeignDevice>>> open_device(DriverContext& context, ForeignPlan plan,
                                                         Children children) {
  auto device = std::make_unique<ForeignDevice>(context, std::move(plan), std::move(children));
  if (auto opened = co_await device->open(); !opened) {
    (void)co_await device->close();
    co_return unexpected(std::move(opened).error());
  }
  co_return device;
}

Task<Result<std::unique_ptr<ForeignDevice>>> open_server(DriverContext& context, ForeignImage image) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, parse_endpoint(image.uri));
  DISKFERRY_CO_TRY(Children children,
                   co_await context.blocking_pool.run([&] { return start_for_server(image, endpoint); }));
  co_return co_await open_device(context, plan_for(endpoint, image.connections), std::move(children));
}

Task<Result<DevicePtr>> open_uri(DriverContext& context, ImageUri uri, OpenOptions options) {
  if (options.writable)
    co_return unexpected(fail(ErrorKind::read_only, "open for writing", uri.to_string())
                             .why(fmt::format("what {} servers have is read only", uri.scheme())));
  DISKFERRY_CO_TRY(auto device, co_await open_server(context, {.uri = std::move(uri),
                                                               .format = "raw",
                                                               .connections = options.connections}));
  co_return DevicePtr(std::move(device));
}

// --- looking ----------------------------------------------------------------------------------------------

/// All of it, or its first and its last 64 KiB: where formats have their headers and footers.
Task<Result<std::vector<std::byte>>> read_ends(BlockDevice& device) {
  constexpr std::uint64_t end_bytes = 64 * kib;  // at least a block
  const std::uint64_t size = device.size_bytes();
  const std::uint64_t first = std::min(size, end_bytes);
  const std::uint64_t last = std::max(first, align_down(size - first, device.info().block_bytes));
  std::vector<std::byte> ends(first + (size - last));
  DISKFERRY_CO_CHECK(co_await device.read(0, std::span(ends).first(first)));
  if (last < size) DISKFERRY_CO_CHECK(co_await device.read(last, std::span(ends).subspan(first)));
  co_return ends;
}

/// As Driver::look.
Task<Result<VolumeFacts>> look_at_uri(DriverContext& context, ImageUri uri, LookOptions options) {
  VolumeFacts facts;
  if (options.for_writing) {
    facts.exists = true;  // for who only reads; nobody is asked
    facts.obstacles.push_back(fail(ErrorKind::read_only, "write", uri.to_string())
                                  .why("files on web and SSH servers are only read from here"));
    co_return facts;
  }
  DISKFERRY_CO_TRY(const Endpoint endpoint, parse_endpoint(uri));
  const ForeignImage image{.uri = std::move(uri), .format = "raw"};
  DISKFERRY_CO_TRY(Children children,
                   co_await context.blocking_pool.run([&] { return start_for_server(image, endpoint); }));
  auto opened = co_await open_device(context, plan_for(endpoint, 1), std::move(children));
  if (!opened && opened.error().kind() == ErrorKind::not_found) co_return facts;
  if (!opened) co_return unexpected(std::move(opened).error());
  const DevicePtr device = checked(*std::move(opened));
  facts.exists = true;
  facts.size_bytes = device->size_bytes();
  facts.block_bytes = device->info().block_bytes;
  auto ends = co_await read_ends(*device);
  (void)co_await device->close();
  if (!ends) co_return unexpected(std::move(ends).error());
  facts.identity = content_identity(endpoint, facts.size_bytes, *ends);
  co_return facts;
}

bool is_on_server(const ImageUri& uri) {
  return uri.scheme() == "http" || uri.scheme() == "https" || uri.scheme() == "ssh";
}

constexpr std::array<std::string_view, 1> http_aliases{"https"};

}  // namespace

Task<Result<OpenedForeign>> open_foreign(DriverContext& context, ForeignImage image) {
  if (is_on_server(image.uri)) {
    DISKFERRY_CO_TRY(auto device, co_await open_server(context, std::move(image)));
    co_return OpenedForeign{.device = std::move(device)};
  }
  if (!image.uri.is_file())
    co_return unexpected(
        fail(ErrorKind::unsupported, "open", image.uri.to_string())
            .why(fmt::format("{} images are read from files and from http, https and ssh servers only",
                             image.format))
            .remedy("copy it to a file first, as raw, and name that"));
  DISKFERRY_CO_TRY(Children children, co_await context.blocking_pool.run([&] { return start_local(image); }));
  DISKFERRY_CO_TRY(
      auto device,
      co_await open_device(context, {.name = image.uri.to_string(), .connections = image.connections},
                           std::move(children)));
  auto files = co_await context.blocking_pool.run(
      [&] { return further_files(device->child().pid(), image.uri.path(), image.folders); });
  if (!files) {
    (void)co_await device->close();
    co_return unexpected(std::move(files).error());
  }
  co_return OpenedForeign{.device = std::move(device), .further_files = *std::move(files)};
}

}  // namespace diskferry::foreign

namespace diskferry {

const Driver http_driver{.scheme = "http",
                         .aliases = foreign::http_aliases,
                         .summary = "file on a web server, read-only, through qemu-nbd",
                         .keys = foreign::http_keys,
                         .open = foreign::open_uri,
                         .look = foreign::look_at_uri};
const Driver ssh_driver{.scheme = "ssh",
                        .aliases = {},
                        .summary = "file on an SSH server, read-only, through qemu-nbd",
                        .keys = foreign::ssh_keys,
                        .open = foreign::open_uri,
                        .look = foreign::look_at_uri};

}  // namespace diskferry
