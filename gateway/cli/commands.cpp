// The table of commands.
#include "gateway/cli/command.hpp"

#include <array>

namespace diskferry::cli {

extern const Command copy_command;
extern const Command export_command;
extern const Command inspect_command;
extern const Command map_command;
extern const Command pki_command;
extern const Command plan_command;
extern const Command verify_command;

namespace {
// One line a command, in the order of --help.
constexpr std::array commands{
    &inspect_command, &map_command,    &copy_command, &verify_command,
    &plan_command,    &export_command, &pki_command,
};
}  // namespace

std::span<const Command* const> all_commands() {
  return commands;
}

}  // namespace diskferry::cli
