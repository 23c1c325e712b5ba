// The state in and out of JSON.
#include "gateway/move/move_state.hpp"

#include "gateway/move/json_fields.hpp"

#include <algorithm>
#include <array>

#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr std::array<std::string_view, 2> ways{"intercept", "qmp"};
constexpr std::array<std::string_view, 4> routes{"gateway", "through", "direct", "shared"};

json::object encode(const MoveDiskState& disk) {
  return {{"target", disk.target},
          {"source", disk.source},
          {"source-format", disk.source_format},
          {"uri", disk.uri},
          {"format", disk.format},
          {"route", to_string(disk.route)},
          {"reason", disk.reason},
          {"size-bytes", disk.size_bytes},
          {"drive", disk.drive},
          {"export", disk.export_name},
          {"created", disk.was_created},
          {"taken-up", disk.is_taken_up},
          {"block-device", disk.is_block_device}};
}

json::object encode(const PauseParts& pause) {
  return {{"until-flush-us", pause.until_flush_us},
          {"drain-us", pause.drain_us},
          {"device-state-us", pause.device_state_us},
          {"total-us", pause.total_us},
          {"hypervisor-ms", pause.hypervisor_ms}};
}

Result<MoveDiskState> read_disk(const json::object& object) {
  MoveDiskState disk;
  std::string route = "gateway";
  JsonFields fields(object, "a disk of a move's state");
  fields.take("target", disk.target);
  fields.take("source", disk.source);
  fields.take("source-format", disk.source_format);
  fields.take("uri", disk.uri);
  fields.take("format", disk.format);
  fields.take("route", route);
  fields.take("reason", disk.reason);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("drive", disk.drive);
  fields.take("export", disk.export_name);
  fields.take("created", disk.was_created);
  fields.take("taken-up", disk.is_taken_up);
  fields.take("block-device", disk.is_block_device);
  DISKFERRY_CHECK(fields.finish());
  const auto* known = std::ranges::find(routes, route);
  if (known == routes.end())
    return unexpected(fail(ErrorKind::invalid_argument, "read a move's state").why("there is no such route"));
  disk.route = static_cast<DiskRoute>(known - routes.begin());
  return disk;
}

Result<PauseParts> read_pause(const json::object& object) {
  PauseParts pause;
  JsonFields fields(object, "the pause of a move");
  fields.take("until-flush-us", pause.until_flush_us);
  fields.take("drain-us", pause.drain_us);
  fields.take("device-state-us", pause.device_state_us);
  fields.take("total-us", pause.total_us);
  fields.take("hypervisor-ms", pause.hypervisor_ms);
  DISKFERRY_CHECK(fields.finish());
  return pause;
}

Result<Phase> read_phase(const std::string& name) {
  if (const auto phase = phase_named(name)) return *phase;
  return unexpected(fail(ErrorKind::invalid_argument, "read a move's state").why("there is no such phase"));
}

Result<PhaseTime> read_time(const json::object& object) {
  PhaseTime time;
  std::string phase;
  JsonFields fields(object, "the timeline of a move");
  fields.take("phase", phase);
  fields.take("at-ms", time.at_ms);
  DISKFERRY_CHECK(fields.finish());
  DISKFERRY_TRY(time.phase, read_phase(phase));
  return time;
}

}  // namespace

std::string_view to_string(MoveWayKind way) noexcept {
  return ways[static_cast<std::size_t>(way)];
}

std::string_view to_string(DiskRoute route) noexcept {
  return routes[static_cast<std::size_t>(route)];
}

DiskRoute route_of(std::string_view scheme, std::string_view format, bool is_running) noexcept {
  if (scheme != "file") return DiskRoute::direct;
  return format == "raw" || !is_running ? DiskRoute::gateway : DiskRoute::through;
}

std::string to_json(const MoveState& state) {
  json::array disks;
  for (const MoveDiskState& disk : state.disks) disks.push_back(encode(disk));
  json::array timeline;
  for (const PhaseTime& time : state.timeline)
    timeline.push_back({{"phase", to_string(time.phase)}, {"at-ms", time.at_ms}});
  json::object object{{"phase", to_string(state.phase)},
                      {"machine", state.machine},
                      {"way", to_string(state.way)},
                      {"paused", state.was_paused},
                      {"fenced", state.is_fenced},
                      {"persistent", state.is_persistent},
                      {"cold", state.is_cold},
                      {"disks", std::move(disks)},
                      {"destination-xml", state.destination_xml},
                      {"persistent-xml", state.persistent_xml},
                      {"timeline", std::move(timeline)},
                      {"warnings", json::array(state.warnings.begin(), state.warnings.end())},
                      {"leftovers", json::array(state.leftovers.begin(), state.leftovers.end())}};
  if (state.pause) object["pause"] = encode(*state.pause);
  return json::serialize(object);
}

Result<MoveState> parse_move_state(std::string_view text) {
  DISKFERRY_TRY(json::object object, parse_json_object(text, "a move's state"));
  MoveState state;
  if (object.empty()) return state;
  if (const auto* pause = object.if_contains("pause"); pause != nullptr && pause->is_object()) {
    DISKFERRY_TRY(state.pause, read_pause(pause->get_object()));
    object.erase("pause");
  }
  std::string phase = "planned";
  std::string way = "intercept";
  JsonFields fields(object, "a move's state");
  fields.take("phase", phase);
  fields.take("machine", state.machine);
  fields.take("way", way);
  fields.take("paused", state.was_paused);
  fields.take("fenced", state.is_fenced);
  fields.take("persistent", state.is_persistent);
  fields.take("cold", state.is_cold);
  fields.each("disks", [&](const json::object& each) -> Result<void> {
    DISKFERRY_TRY(MoveDiskState disk, read_disk(each));
    state.disks.push_back(std::move(disk));
    return {};
  });
  fields.take("destination-xml", state.destination_xml);
  fields.take("persistent-xml", state.persistent_xml);
  fields.each("timeline", [&](const json::object& each) -> Result<void> {
    DISKFERRY_TRY(const PhaseTime time, read_time(each));
    state.timeline.push_back(time);
    return {};
  });
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
  DISKFERRY_CHECK(fields.finish());
  DISKFERRY_TRY(state.phase, read_phase(phase));
  const auto* known = std::ranges::find(ways, way);
  if (known == ways.end())
    return unexpected(fail(ErrorKind::invalid_argument, "read a move's state").why("there is no such way"));
  state.way = static_cast<MoveWayKind>(known - ways.begin());
  return state;
}

std::uint64_t us_between(TimePoint from, TimePoint to) noexcept {
  return to <= from ? 0
                    : static_cast<std::uint64_t>(
                          std::chrono::duration_cast<std::chrono::microseconds>(to - from).count());
}

}  // namespace diskferry
