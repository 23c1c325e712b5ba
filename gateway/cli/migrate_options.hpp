// The options that say what move is meant: of `migrate`, and of `plan migrate`, which shows what it would do.
#pragma once

#include "gateway/move/request.hpp"

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace diskferry::cli {

struct MigrateOptions {
  std::string gateway;
  MoveRequest move;
  std::vector<std::string> disks;
  std::vector<std::string> networks;
  bool via_ssh = false;
  bool no_verify = false;

  /// Errors: invalid_argument.
  Result<MoveRequest> request() const;
};
void add_migrate_options(CLI::App& app, MigrateOptions& options);

}  // namespace diskferry::cli
