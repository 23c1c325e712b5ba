// The state in and out of JSON.
#include "gateway/move/move_state.hpp"

#include "gateway/move/state_fields.hpp"

#include <array>

namespace diskferry {
namespace {

constexpr std::array<std::string_view, 3> way_names{"intercept", "qmp", "through"};
constexpr std::array ways{MoveWayKind::intercept, MoveWayKind::qmp, MoveWayKind::through};
constexpr std::array<std::string_view, 5> route_names{"gateway", "through", "direct", "shared", "rehomed"};
constexpr std::array routes{DiskRoute::gateway, DiskRoute::through, DiskRoute::direct, DiskRoute::shared,
                            DiskRoute::rehomed};

}  // namespace

std::string_view to_string(MoveWayKind way) noexcept {
  return way_names[static_cast<std::size_t>(way)];
}

std::string_view to_string(DiskRoute route) noexcept {
  return route_names[static_cast<std::size_t>(route)];
}

DiskRoute route_of(std::string_view scheme, std::string_view format, bool is_running) noexcept {
  if (scheme != "file") return DiskRoute::direct;
  return format == "raw" || !is_running ? DiskRoute::gateway : DiskRoute::through;
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<MoveDiskState> auto& disk) {
  fields.take("target", disk.target);
  fields.take("source", disk.source);
  fields.take("source-format", disk.source_format);
  fields.take("uri", disk.uri);
  fields.take("format", disk.format);
  fields.take("route", disk.route, Words<DiskRoute>{routes, to_string});
  fields.take("reason", disk.reason);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("drive", disk.drive);
  fields.take("source-part-offset", disk.source_part.offset);
  fields.take("source-part-bytes", disk.source_part.length);
  fields.take("export", disk.export_name);
  fields.take("own-export", disk.own_export);
  fields.take("own-storage", disk.own_storage);
  fields.take("created", disk.was_created);
  fields.take("taken-up", disk.is_taken_up);
  fields.take("block-device", disk.is_block_device);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<MoveState> auto& state) {
  fields.take("phase", state.phase, phase_words);
  fields.take("machine", state.machine);
  fields.take("way", state.way, Words<MoveWayKind>{ways, to_string});
  fields.take("paused", state.was_paused);
  fields.take("fenced", state.is_fenced);
  fields.take("persistent", state.is_persistent);
  fields.take("cold", state.is_cold);
  fields.take_list("disks", state.disks);
  fields.take("destination-xml", state.destination_xml);
  fields.take("persistent-xml", state.persistent_xml);
  fields.take("replacement", state.replacement);
  fields.take_list("timeline", state.timeline);
  fields.take_optional("pause", state.pause);
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
}

std::string to_json(const MoveState& state) {
  return write_json(state);
}

Result<MoveState> parse_move_state(std::string_view text) {
  return read_json<MoveState>(text, "a move's state");
}

std::uint64_t us_between(TimePoint from, TimePoint to) noexcept {
  return to <= from ? 0
                    : static_cast<std::uint64_t>(
                          std::chrono::duration_cast<std::chrono::microseconds>(to - from).count());
}

}  // namespace diskferry
