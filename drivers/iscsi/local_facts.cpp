#include "drivers/iscsi/local_facts.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace diskferry::iscsi {
namespace {

constexpr std::size_t file_bytes_max = 4096;
constexpr const char* initiator_file = "/etc/iscsi/initiatorname.iscsi";

/// The start of a small file. Errors: those of opening and reading it.
Result<std::string> content_of(const std::string& path) {
  // A named pipe that nobody writes to must not hold us up.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return unexpected(errno_error(errno, "read password", printable(path)));
  std::string content(file_bytes_max, '\0');
  const ssize_t got = ::read(fd, content.data(), content.size());
  const int error_number = errno;
  ::close(fd);
  if (got < 0) return unexpected(errno_error(error_number, "read password", printable(path)));
  content.resize(static_cast<std::size_t>(got));
  return content;
}

/// Where one is asked for.
Result<std::string> read_password(const Endpoint& endpoint, const std::string& user, const std::string& path,
                                  std::string_view variable) {
  if (user.empty()) return std::string();
  if (!path.empty()) {
    DISKFERRY_TRY(const std::string content, content_of(path));
    return password_of(content, path);
  }
  const std::string name(variable);
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0')
    return unexpected(
        fail(ErrorKind::invalid_argument, "log in", endpoint.name)
            .why(fmt::format("there is no password for '{}'", printable(user)))
            .remedy(fmt::format("name a file with it by {}=PATH, or set {}",
                                variable == password_variable ? "password-file" : "target-password-file",
                                variable)));
  return password_of(value, name);
}

Result<Secrets> read_secrets(const Endpoint& endpoint) {
  Secrets secrets;
  DISKFERRY_TRY(secrets.password,
                read_password(endpoint, endpoint.user, endpoint.password_file, password_variable));
  DISKFERRY_TRY(
      secrets.target_password,
      read_password(endpoint, endpoint.target_user, endpoint.target_password_file, target_password_variable));
  // Who knows only one of them could then play the other side (RFC 7143, 9.2.1).
  if (!endpoint.target_user.empty() && secrets.password == secrets.target_password)
    return unexpected(fail(ErrorKind::invalid_argument, "log in", endpoint.name)
                          .why("both sides have the same password, which proves nothing")
                          .remedy("give the target another one"));
  return secrets;
}

std::string own_name() {
  if (const auto content = content_of(initiator_file)) {
    if (std::string name = initiator_of(*content); !name.empty()) return name;
  }
  std::array<char, 256> host{};
  (void)::gethostname(host.data(), host.size() - 1);
  return initiator_for_host(host.data());
}

}  // namespace

Task<Result<LocalFacts>> read_local_facts(BlockingPool& pool, Endpoint endpoint) {
  co_return co_await pool.run([&endpoint]() -> Result<LocalFacts> {
    LocalFacts facts;
    DISKFERRY_TRY(facts.secrets, read_secrets(endpoint));
    facts.initiator = endpoint.initiator.empty() ? own_name() : endpoint.initiator;
    facts.host_identity = host_identity();
    return facts;
  });
}

}  // namespace diskferry::iscsi
