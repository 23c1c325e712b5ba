// By hand, because Debian 12's headers are older than the kernels that this runs on.
#include "drivers/foreign/landlock.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <initializer_list>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace diskferry::foreign {
namespace {

// <linux/landlock.h>, as of version 6.
struct RulesetAttributes {
  std::uint64_t handled_files;
  std::uint64_t handled_net;
  std::uint64_t scoped;
};
struct [[gnu::packed]] PathRule {
  std::uint64_t allowed;
  std::int32_t parent_fd;
};
struct PortRule {
  std::uint64_t allowed;
  std::uint64_t port;
};
constexpr unsigned create_version = 1;
constexpr int rule_path = 1;
constexpr int rule_port = 2;
constexpr std::uint64_t right_execute = 1 << 0;
constexpr std::uint64_t right_write_file = 1 << 1;
constexpr std::uint64_t right_read_file = 1 << 2;
constexpr std::uint64_t right_read_folder = 1 << 3;
constexpr std::uint64_t right_ioctl = 1 << 15;
constexpr std::uint64_t right_connect_tcp = 1 << 1;
constexpr std::uint64_t rights_tcp = 3;    // bind and connect
constexpr std::uint64_t scopes_all = 3;    // abstract UNIX sockets and signals
constexpr std::uint16_t port_domain = 53;  // answers too long for UDP

/// All that can be handled: what is not handled is allowed.
constexpr std::uint64_t handled_files(int version) {
  if (version >= 5) return (1 << 16) - 1;
  if (version >= 3) return (1 << 15) - 1;
  if (version == 2) return (1 << 14) - 1;
  return (1 << 13) - 1;
}

class Ruleset {
 public:
  explicit Ruleset(int version) : version_(version) {
    const RulesetAttributes attributes{.handled_files = handled_files(version),
                                       .handled_net = version >= 4 ? rights_tcp : 0,
                                       .scoped = version >= 6 ? scopes_all : 0};
    const std::size_t bytes = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    fd_ = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, bytes, 0));
  }
  Ruleset(const Ruleset&) = delete;
  Ruleset& operator=(const Ruleset&) = delete;
  ~Ruleset() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool is_made() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }

  /// Where it is; what does not exist needs no rule.
  Result<void> allow(const std::string& path, std::uint64_t rights) {
    const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
    if (fd < 0) return {};
    struct stat status{};
    int failed = ::fstat(fd, &status) != 0 ? errno : 0;
    if (failed == 0) {
      rights &= handled_files(version_);
      if (!S_ISDIR(status.st_mode)) rights &= ~right_read_folder;
      if (!S_ISBLK(status.st_mode)) rights &= ~right_ioctl;
      const PathRule rule{.allowed = rights, .parent_fd = fd};
      if (::syscall(SYS_landlock_add_rule, fd_, rule_path, &rule, 0) != 0) failed = errno;
    }
    ::close(fd);
    if (failed != 0) return unexpected(errno_error(failed, "confine qemu-nbd to files", path));
    return {};
  }
  Result<void> allow_port(std::uint16_t port) {
    if (version_ < 4) return {};
    const PortRule rule{.allowed = right_connect_tcp, .port = port};
    if (::syscall(SYS_landlock_add_rule, fd_, rule_port, &rule, 0) != 0)
      return unexpected(errno_error(errno, "confine qemu-nbd to a port"));
    return {};
  }

 private:
  int version_;
  int fd_ = -1;
};

/// What any program needs to start: its libraries, and the loader.
Result<void> allow_program(Ruleset& rules, const std::string& program) {
  constexpr std::uint64_t read = right_read_file | right_read_folder;
  DISKFERRY_CHECK(rules.allow(program, right_execute | right_read_file));
  const auto prefix = std::filesystem::path(program).parent_path().parent_path();
  for (const char* folder : {"lib", "lib64"}) DISKFERRY_CHECK(rules.allow((prefix / folder).string(), read));
  for (const char* folder : {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
                             "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/dev/urandom"})
    DISKFERRY_CHECK(rules.allow(folder, read));
  for (const char* loader : {"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"})
    DISKFERRY_CHECK(rules.allow(loader, right_execute | right_read_file));
  return rules.allow("/dev/null", right_read_file | right_write_file);
}

/// What resolving names and checking certificates needs.
Result<void> allow_internet(Ruleset& rules, const std::vector<std::uint16_t>& ports) {
  for (const char* path :
       {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf",
        "/etc/services", "/etc/protocols", "/run/systemd/resolve", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
        "/etc/gnutls", "/etc/pki", "/etc/crypto-policies", "/usr/share/ca-certificates",
        "/usr/share/crypto-policies", "/usr/local/share/ca-certificates"})
    DISKFERRY_CHECK(rules.allow(path, right_read_file | right_read_folder));
  DISKFERRY_CHECK(rules.allow_port(port_domain));
  for (const std::uint16_t port : ports) DISKFERRY_CHECK(rules.allow_port(port));
  return {};
}

}  // namespace

int landlock_version() noexcept {
  const auto version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, create_version);
  return version > 0 ? static_cast<int>(version) : 0;
}

bool allow_reading_below(int ruleset, const char* folder) noexcept {
  const int fd = ::open(folder, O_PATH | O_CLOEXEC);
  if (fd < 0) return false;
  const PathRule rule{.allowed = right_read_file | right_read_folder, .parent_fd = fd};
  const bool is_added = ::syscall(SYS_landlock_add_rule, ruleset, rule_path, &rule, 0) == 0;
  ::close(fd);
  return is_added;
}

Result<std::optional<int>> make_ruleset(const Confinement& confinement, const std::string& program) {
  const int version = landlock_version();
  if (version == 0) return std::optional<int>();
  Ruleset rules(version);
  if (!rules.is_made()) return unexpected(errno_error(errno, "confine qemu-nbd to files", program));
  DISKFERRY_CHECK(allow_program(rules, program));
  if (confinement.sockets != Sockets::none) DISKFERRY_CHECK(allow_internet(rules, confinement.ports));
  for (const std::string& file : confinement.files)
    DISKFERRY_CHECK(rules.allow(file, right_read_file | right_ioctl));
  for (const std::string& folder : confinement.folders) DISKFERRY_CHECK(rules.allow(folder, right_read_file));
  return std::optional<int>(rules.release());
}

}  // namespace diskferry::foreign
