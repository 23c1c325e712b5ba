// Rules about disks that are exports of this gateway, and machines that go by way of storage of both hosts.
#include "diskferry/image_uri.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// Calls check(disk, move) for each disk that goes over so.
template <class Check>
void for_each_rehomed(const PreflightFacts& facts, Check check) {
  if (!facts.goes_through) return;
  for (const DiskFacts& each : facts.disks)
    if (each.move) check(each, *each.move);
}

void exports_are_known(const PreflightFacts& facts, Findings& found) {
  for_each_rehomed(facts, [&](const DiskFacts& each, const MoveDisk& move) {
    if (each.export_storage.empty())
      found.block("export-busy", each.disk.target,
                  fmt::format("A job is replacing the storage of the export {}.", each.own_export),
                  "wait for that job, or cancel it (diskferry jobs)");
    else if (each.is_in_place)
      found.note(
          "export-in-place", each.disk.target,
          fmt::format("The export {} is on {} already: nothing is copied.", each.own_export, move.uri));
    else
      found.note(
          "export-replaced", each.disk.target,
          fmt::format("The storage of the export {} is replaced by {} first.", each.own_export, move.uri));
  });
}

void other_host_reaches_targets(const PreflightFacts& facts, Findings& found) {
  for_each_rehomed(facts, [&](const DiskFacts& each, const MoveDisk& move) {
    if (!each.not_reached_there.empty())
      found.block("target-not-reached", each.disk.target,
                  fmt::format("The other host does not reach {}: {}.", move.uri, each.not_reached_there),
                  "name storage that both hosts reach, or a file at the target's host");
  });
}

void exports_are_not_their_targets(const PreflightFacts& facts, Findings& found) {
  if (facts.goes_through) return;
  for (const DiskFacts& each : facts.disks)
    if (each.is_in_place && each.move)
      found.block("same-storage", each.disk.target,
                  fmt::format("{} is what the export {} of this gateway is on: it would be overwritten with "
                              "itself.",
                              each.move->uri, each.own_export),
                  "move all disks to storage that both hosts reach, while the machine runs; or name another "
                  "target");
}

void options_suit_the_way(const PreflightFacts& facts, Findings& found) {
  if (!facts.goes_through) return;
  if (facts.request.post_copy)
    found.block("post-copy-paused", "memory",
                "The guest waits on the other host until this gateway has closed its disks; post-copy is for "
                "a guest that runs at once.",
                "leave out --post-copy, and say --auto-converge where the memory does not settle");
  if (facts.request.verify_running)
    found.block("verify-through", "machine", "What an export's storage is replaced by is not read back.",
                "leave out --verify, and compare with diskferry verify when the machine is shut off");
  if (facts.request.keep_source)
    found.warn("kept-source-through", "machine",
               "The definition that is kept here names exports that are gone then.",
               "leave out --keep-source, or define the machine anew before it is started here");
  if (facts.request.keep_partial)
    found.warn("keep-partial-through", "machine",
               "A target that is not finished is removed: --keep-partial has no effect.",
               "leave out --keep-partial");
}

constexpr std::array<Rule, 4> rules{exports_are_known, other_host_reaches_targets,
                                    exports_are_not_their_targets, options_suit_the_way};
}  // namespace

std::span<const Rule> through_rules() noexcept {
  return rules;
}

}  // namespace diskferry
