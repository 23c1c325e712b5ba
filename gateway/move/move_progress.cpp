// How a move stands, for those who watch it. The names of the fields are part of the interface.
#include "gateway/move/move_context.hpp"
#include "gateway/move/state_fields.hpp"

#include <algorithm>

namespace diskferry {
namespace {

std::uint64_t received_bytes(const WindowStats& window) {
  return window.acknowledged_bytes + window.zeroed_bytes;
}

}  // namespace

static void list_fields(JsonWriter& fields, const SourceDisks::DiskStats& disk) {
  const WindowStats& window = disk.window;
  fields.take("disk", disk.target);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("received-bytes", received_bytes(window));
  fields.take("sent-bytes", window.sent_bytes);
  fields.take("sent-zero-bytes", window.sent_zero_bytes);
  fields.take("resent-bytes", window.resent_bytes);
  fields.take("unchanged-bytes", window.unchanged_bytes);
  fields.take("superseded-bytes", window.superseded_bytes);
  fields.take("pending-bytes", window.pending_bytes);
  fields.take("window-bytes", window.window_bytes);
  fields.take("verified-bytes", disk.verified_bytes);
  fields.take("bytes-per-second", window.bytes_per_s);
}

static void list_fields(JsonWriter& fields, const LibvirtJob& memory) {
  fields.take("total-bytes", memory.memory_total_bytes);
  fields.take("processed-bytes", memory.memory_processed_bytes);
  fields.take("remaining-bytes", memory.memory_remaining_bytes);
  fields.take("bytes-per-second", memory.memory_bytes_per_s);
  fields.take("dirty-pages-per-second", memory.memory_dirty_pages_per_s);
  fields.take("iterations", memory.memory_iterations);
}

static void list_fields(JsonWriter& fields, const MoveContext& move) {
  const MoveState& state = move.state;
  const auto stats = move.disk_stats();
  std::uint64_t received = 0;
  std::uint64_t total = 0;
  for (const auto& disk : stats) {
    total += disk.size_bytes;
    received += std::min(disk.size_bytes, received_bytes(disk.window));
  }
  for (const MoveDiskState& disk : state.disks) {
    if (disk.route != DiskRoute::rehomed || disk.source == disk.own_storage) continue;
    total += disk.size_bytes;
    received = std::min(total, move.copied_bytes);
  }
  fields.take("subject", move.job.subject);
  fields.take("done", received);
  fields.take("total", total);
  fields.take("copied-bytes", move.copied_bytes);
  fields.take("phase", state.phase, phase_words);
  fields.take("way", state.is_cold ? "cold" : std::string(to_string(state.way)));
  fields.take("word", std::string(operators_word(state.phase)));
  fields.take_list("disks", stats);
  fields.take_object("memory", move.memory);
  fields.take_optional("pause", state.pause);
  fields.take_list("timeline", state.timeline);
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
}

std::string MoveContext::progress() const {
  return write_json(*this);
}

}  // namespace diskferry
