// Who may use which export: --require-tls and --allow-for, which name exports, become rules of each. Pure;
// the command `export` calls it before anything is opened.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <vector>

namespace diskferry::cli {

/// As the operator wrote it.
struct AccessOptions {
  std::vector<std::string> require_tls{};  ///< names of exports
  std::vector<std::string> allow_for{};    ///< "EXPORT=CLIENT"
  bool is_empty() const noexcept { return require_tls.empty() && allow_for.empty(); }
};

/// The rules of one export.
struct AccessRules {
  bool requires_tls = false;
  std::vector<std::string> allow{};  ///< clients let in; empty: everybody
  bool operator==(const AccessRules&) const = default;
};

/// One for each name, in order. A name of an export may have '=' in it: the longest that fits is meant.
/// Errors: invalid_argument (a name that no export has, a rule without a client).
Result<std::vector<AccessRules>> access_rules(const AccessOptions& options,
                                              const std::vector<std::string>& export_names);

}  // namespace diskferry::cli
