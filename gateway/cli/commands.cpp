// The table of commands.
#include "gateway/cli/command.hpp"

#include <array>

namespace diskferry::cli {

extern const Command export_command;
extern const Command inspect_command;
extern const Command map_command;

namespace {
// One line a command, in the order of --help.
constexpr std::array commands{
    &inspect_command,
    &map_command,
    &export_command,
};
}  // namespace

std::span<const Command* const> all_commands() {
  return commands;
}

}  // namespace diskferry::cli
