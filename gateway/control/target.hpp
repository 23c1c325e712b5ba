// What a request is about: the path and the query of its target, decoded. Pure.
#pragma once

#include "diskferry/error.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::control {

struct Target {
  std::vector<std::string> segments{};  ///< "/v1/exports/a%2Fb" is {"v1", "exports", "a/b"}
  std::map<std::string, std::string> query{};
};

/// Errors: invalid_argument (no absolute path, a bad escape, a key twice), too_large.
Result<Target> parse_target(std::string_view text);
/// One segment or query value, escaped so that parse_target() gives it back.
std::string escape(std::string_view text);

}  // namespace diskferry::control
