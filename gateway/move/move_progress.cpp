// How a move stands, for those who watch it. The names of the fields are part of the interface.
#include "gateway/move/move_context.hpp"

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

json::object fields_of(const SourceDisks::DiskStats& disk) {
  const WindowStats& window = disk.window;
  return {{"disk", disk.target},
          {"size-bytes", disk.size_bytes},
          {"received-bytes", window.acknowledged_bytes + window.zeroed_bytes},
          {"sent-bytes", window.sent_bytes},
          {"sent-zero-bytes", window.sent_zero_bytes},
          {"resent-bytes", window.resent_bytes},
          {"unchanged-bytes", window.unchanged_bytes},
          {"superseded-bytes", window.superseded_bytes},
          {"pending-bytes", window.pending_bytes},
          {"window-bytes", window.window_bytes},
          {"verified-bytes", disk.verified_bytes},
          {"bytes-per-second", window.bytes_per_s}};
}

json::object fields_of(const LibvirtJob& memory) {
  return {{"total-bytes", memory.memory_total_bytes},
          {"processed-bytes", memory.memory_processed_bytes},
          {"remaining-bytes", memory.memory_remaining_bytes},
          {"bytes-per-second", memory.memory_bytes_per_s},
          {"dirty-pages-per-second", memory.memory_dirty_pages_per_s},
          {"iterations", memory.memory_iterations}};
}

json::object fields_of(const PauseParts& pause) {
  return {{"until-flush-us", pause.until_flush_us},
          {"drain-us", pause.drain_us},
          {"device-state-us", pause.device_state_us},
          {"total-us", pause.total_us},
          {"hypervisor-ms", pause.hypervisor_ms}};
}

}  // namespace

std::string MoveContext::progress() const {
  const auto stats = disks ? disks->stats() : last_stats_;
  json::array each;
  std::uint64_t received = 0;
  std::uint64_t total = 0;
  for (const auto& disk : stats) {
    each.push_back(fields_of(disk));
    total += disk.size_bytes;
    received += std::min(disk.size_bytes, disk.window.acknowledged_bytes + disk.window.zeroed_bytes);
  }
  json::object object{{"subject", job.subject},
                      {"done", received},
                      {"total", total},
                      {"copied-bytes", copied_bytes},
                      {"phase", to_string(state.phase)},
                      {"way", state.is_cold ? "cold" : to_string(state.way)},
                      {"word", operators_word(state.phase)},
                      {"disks", std::move(each)},
                      {"memory", fields_of(memory)}};
  if (state.pause) object["pause"] = fields_of(*state.pause);
  json::array timeline;
  for (const PhaseTime& time : state.timeline)
    timeline.push_back({{"phase", to_string(time.phase)}, {"at-ms", time.at_ms}});
  object["timeline"] = std::move(timeline);
  object["warnings"] = json::array(state.warnings.begin(), state.warnings.end());
  object["leftovers"] = json::array(state.leftovers.begin(), state.leftovers.end());
  return json::serialize(object);
}

}  // namespace diskferry
