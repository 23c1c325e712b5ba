// The options that say what move is meant: of `migrate`, and of `plan migrate`, which shows what it would do.
#pragma once

#include "gateway/move/request.hpp"

#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
}

namespace diskferry::cli {

struct MigrateOptions {
  std::string gateway;
  MoveRequest move;
  std::vector<std::string> disks;
  std::vector<std::string> secrets;  ///< "vda=UUID"
  std::vector<std::string> networks;
  bool via_ssh = false;
  bool no_verify = false;

  /// Errors: invalid_argument.
  Result<MoveRequest> request() const;
};
/// "vda=/images/vm.qcow2", "vdb=raw:/dev/vg/vm" (the format, where the name's ending does not say it).
/// Errors: invalid_argument.
Result<MoveDisk> parse_move_disk(const std::string& text);
/// "default=lan". Errors: invalid_argument.
Result<std::pair<std::string, std::string>> parse_network_names(const std::string& text);
void add_migrate_options(CLI::App& app, MigrateOptions& options);

}  // namespace diskferry::cli
