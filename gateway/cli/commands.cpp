// The table of commands.
#include "gateway/cli/command.hpp"

#include <array>

namespace diskferry::cli {

extern const Command cancel_command;
extern const Command commit_command;
extern const Command copy_command;
extern const Command evacuate_command;
extern const Command export_command;
extern const Command exports_command;
extern const Command fallback_command;
extern const Command inspect_command;
extern const Command jobs_command;
extern const Command map_command;
extern const Command migrate_command;
extern const Command pause_command;
extern const Command pki_command;
extern const Command plan_command;
extern const Command replace_command;
extern const Command resume_command;
extern const Command set_command;
extern const Command status_command;
extern const Command verify_command;
extern const Command watch_command;

namespace {
// One line a command, in the order of --help.
constexpr std::array commands{
    &inspect_command, &map_command,     &copy_command,    &verify_command,   &plan_command,
    &export_command,  &migrate_command, &replace_command, &evacuate_command, &exports_command,
    &jobs_command,    &status_command,  &watch_command,   &set_command,      &pause_command,
    &resume_command,  &cancel_command,  &commit_command,  &fallback_command, &pki_command,
};
}  // namespace

std::span<const Command* const> all_commands() {
  return commands;
}

}  // namespace diskferry::cli
