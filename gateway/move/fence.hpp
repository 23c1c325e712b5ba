// Cutting a host off by the command that the configuration names for it, and believing nothing but its word
// that the host is off. Called by an evacuation, once everything else has been looked at.
#pragma once

#include "diskferry/driver.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

struct FenceCommand {
  /// The program, by its absolute path, and its arguments; "%h" in an argument stands for the host's name.
  /// One word alone is taken apart at its spaces. Empty: there is none.
  std::vector<std::string> words{};
  Duration limit = std::chrono::seconds(60);
};

/// The words for one host. Errors: invalid_argument (no absolute path; a host's name that could be taken for
/// an option or has characters no host's name has).
Result<std::vector<std::string>> fence_words(const FenceCommand& command, const std::string& host);

/// Whether what the command printed says that the host is off: its last line has the word "off" and not the
/// word "on", as fence agents print it ("Success: Powered OFF", "Status: OFF").
bool says_off(std::string_view output);

/// Runs it, without a shell, and returns its last line, which says that the host is off. Errors: not_found,
/// permission (the program), timed_out (it was killed), io (it failed, or did not say so), cancelled (it was
/// killed: what it had begun is not known).
Task<Result<std::string>> fence_host(DriverContext& context, FenceCommand command, std::string host);

}  // namespace diskferry
