#include "gateway/move/replace_plan.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/state_fields.hpp"

#include <fmt/format.h>

namespace diskferry {

static void list_fields(JsonWriter& fields, const ReplacePlan& plan) {
  fields.take_list("disks", plan.disks);
  fields.take("warnings", plan.warnings);
  fields.take("blockers", plan.blockers);
}

std::string to_json(const ReplacePlan& plan) {
  return write_json(plan);
}

namespace {
/// One after the other, for the storages of all may be the same server.
Task<void> look_at(ReplaceEnvironment& environment, const ReplaceRequest& request, const ReplaceDisk& wanted,
                   ReplacePlan& plan) {
  ReplaceDiskState& state = plan.disks.emplace_back(
      ReplaceDiskState{.name = wanted.name, .uri = wanted.uri, .format = wanted.format});
  ReplacedDisk disk(environment.drivers, environment.endpoints, state, {.overwrite = request.overwrite});
  const auto looked = co_await disk.look();
  state.was_created = looked && disk.makes_target();
  (void)co_await disk.end(false);
  if (!looked)
    plan.blockers.push_back(fmt::format("{}: {}", printable(wanted.name), looked.error().message()));
  else if (!disk.makes_target())
    plan.warnings.push_back(
        fmt::format("{}: what is on {} is overwritten", printable(wanted.name), printable(wanted.uri)));
}
}  // namespace

Task<Result<ReplacePlan>> plan_replacement(ReplaceEnvironment& environment, ReplaceRequest request) {
  ReplacePlan plan;
  plan.disks.reserve(request.disks.size());
  for (const ReplaceDisk& wanted : request.disks) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("plan"));
    co_await look_at(environment, request, wanted, plan);
  }
  co_return plan;
}

}  // namespace diskferry
