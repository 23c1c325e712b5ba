// What `diskferry replace` and `diskferry plan replace` are told, and the request that is made of it.
#pragma once

#include "gateway/move/replace_request.hpp"

#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace diskferry::cli {

struct ReplaceOptions {
  std::string gateway;
  std::vector<std::string> pairs;
  std::string format;
  std::string secret;
  ReplaceRequest limits;
  std::optional<std::uint64_t> rate;
  std::string commit_at;
  std::string on_read_error;

  /// Errors: invalid_argument.
  Result<ReplaceRequest> request() const;
};
/// Lifetime: `options` until the arguments have been read.
void add_replace_options(CLI::App& app, ReplaceOptions& options);

}  // namespace diskferry::cli
