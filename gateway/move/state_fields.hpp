// What a move's state and its progress both tell, in and out of JSON. Internal to this room.
#pragma once

#include "gateway/move/json_fields.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/replace_request.hpp"

#include <array>

namespace diskferry {

inline constexpr auto all_phases = [] {
  std::array<Phase, phase_count> all{};
  for (std::size_t i = 0; i < phase_count; ++i) all[i] = static_cast<Phase>(i);
  return all;
}();
inline constexpr Words<Phase> phase_words{all_phases, to_string};

template <class Fields>
void list_fields(Fields& fields, ValueOf<PauseParts> auto& pause) {
  fields.take("until-flush-us", pause.until_flush_us);
  fields.take("drain-us", pause.drain_us);
  fields.take("device-state-us", pause.device_state_us);
  fields.take("total-us", pause.total_us);
  fields.take("hypervisor-ms", pause.hypervisor_ms);
}

template <class Fields>
void list_fields(Fields& fields, ValueOf<PhaseTime> auto& time) {
  fields.take_required("phase", time.phase, phase_words);
  fields.take("at-ms", time.at_ms);
}

template <class Fields>
void list_fields(Fields& fields, ValueOf<HoldParts> auto& hold) {
  fields.take("drain-us", hold.drain_us);
  fields.take("flush-us", hold.flush_us);
  fields.take("record-us", hold.record_us);
  fields.take("switch-us", hold.switch_us);
  fields.take("total-us", hold.total_us);
}

template <class Fields>
void list_fields(Fields& fields, ValueOf<Range> auto& range) {
  fields.take("offset", range.offset);
  fields.take("length", range.length);
}

template <class Fields>
void list_fields(Fields& fields, ValueOf<ReplaceDiskState> auto& disk) {
  fields.take("export", disk.name);
  fields.take("source", disk.source);
  fields.take("source-format", disk.source_format);
  fields.take("source-storages", disk.source_storages);
  fields.take("source-identity", disk.source_identity);
  fields.take("configured", disk.configured);
  fields.take("target-identity", disk.target_identity);
  fields.take("uri", disk.uri);
  fields.take("format", disk.format);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("was-created", disk.was_created);
  fields.take("is-part", disk.is_part);
  fields.take("ends-export", disk.ends_export);
  fields.take("source-node", disk.source_node);
  fields.take_list("unreadable", disk.unreadable);
}

/// How it went, for those who watch.
template <class Fields>
void list_outcome(Fields& fields, const ReplaceState& state) {
  fields.take_optional("hold", state.hold);
  fields.take_list("timeline", state.timeline);
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
}

}  // namespace diskferry
