#include "drivers/foreign/ssh_home.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/foreign/temporary_folder.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <pwd.h>
#include <unistd.h>

namespace diskferry::foreign {
namespace {
namespace fs = std::filesystem;

/// Those that libssh tries.
constexpr std::array identities{"id_ed25519", "id_ecdsa", "id_rsa"};

struct Account {
  std::string name;
  std::string home;
};
Account own_account() {
  std::array<char, 16384> memory{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::geteuid(), &entry, memory.data(), memory.size(), &found) != 0 || found == nullptr)
    return {};
  return {.name = entry.pw_name, .home = entry.pw_dir};
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody changes our environment
  return value == nullptr ? "" : value;
}

}  // namespace

std::string own_user_name() {
  return own_account().name;
}

Result<std::unique_ptr<SshHome>> SshHome::make(const Endpoint& endpoint) {
  std::error_code failed;
  DISKFERRY_TRY(std::string path, make_temporary_folder());
  std::unique_ptr<SshHome> made(new SshHome(path));
  if (!fs::create_directory(path + "/.ssh", failed))
    return unexpected(errno_error(failed.value(), "make a folder", path));
  made->files_.push_back(path);

  std::string home = environment("HOME");
  if (home.empty()) home = own_account().home;
  const std::string own = home + "/.ssh/";
  const bool is_named = !endpoint.known_hosts.empty();
  DISKFERRY_CHECK(made->link(is_named ? endpoint.known_hosts : own + "known_hosts", "known_hosts", is_named));
  made->files_.emplace_back("/etc/ssh/ssh_known_hosts");
  if (endpoint.uses_agent) made->agent_ = environment("SSH_AUTH_SOCK");
  if (endpoint.uses_agent && made->agent_.empty())
    return unexpected(fail(ErrorKind::invalid_argument, "open", endpoint.name)
                          .why("agent=true, and the environment's SSH_AUTH_SOCK names no agent")
                          .remedy("start one with ssh-agent, or name a key with identity="));
  if (!endpoint.identity.empty()) {
    DISKFERRY_CHECK(made->link(endpoint.identity, identities.front(), true));
    DISKFERRY_CHECK(made->link(endpoint.identity + ".pub", identities.front() + std::string(".pub"), false));
    return made;
  }
  for (const std::string name : identities) {
    DISKFERRY_CHECK(made->link(own + name, name, false));
    DISKFERRY_CHECK(made->link(own + name + ".pub", name + ".pub", false));
  }
  return made;
}

SshHome::~SshHome() {
  std::error_code failed;
  fs::remove_all(path_, failed);  // follows no links
}

Result<void> SshHome::link(const std::string& file, const std::string& name, bool is_asked_for) {
  std::error_code failed;
  const fs::path real = fs::canonical(file, failed);
  if (failed || ::access(real.c_str(), R_OK) != 0) {
    if (!is_asked_for) return {};
    return unexpected(errno_error(failed ? failed.value() : errno, "read", printable(file)));
  }
  fs::create_symlink(real, path_ + "/.ssh/" + name, failed);
  if (failed) return unexpected(errno_error(failed.value(), "make a link", path_));
  files_.push_back(real.string());
  return {};
}

}  // namespace diskferry::foreign
