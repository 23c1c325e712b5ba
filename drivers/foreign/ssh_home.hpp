// The home folder that an SSH child sees: links to the files it may use, where libssh looks for them, and
// nothing else of the operator's ~/.ssh. QEMU has no option for any of these files.
#pragma once

#include "drivers/foreign/endpoint.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::foreign {

class SshHome {
 public:
  /// Errors: not_found, permission (a file that the URI names), invalid_argument (no agent, and one is asked
  /// for).
  static Result<std::unique_ptr<SshHome>> make(const Endpoint& endpoint);
  ~SshHome();
  SshHome(const SshHome&) = delete;
  SshHome& operator=(const SshHome&) = delete;

  const std::string& path() const noexcept { return path_; }
  /// What the links lead to, and the folder: what the child has to be let read.
  const std::vector<std::string>& files() const noexcept { return files_; }
  const std::string& agent() const noexcept { return agent_; }  ///< socket of the agent; empty: not asked for

 private:
  explicit SshHome(std::string path) : path_(std::move(path)) {}
  Result<void> link(const std::string& file, const std::string& name, bool is_asked_for);

  std::string path_;
  std::string agent_;
  std::vector<std::string> files_;
};

/// Who we are at an SSH server where the URI does not say it; empty: our user has no name.
std::string own_user_name();

}  // namespace diskferry::foreign
