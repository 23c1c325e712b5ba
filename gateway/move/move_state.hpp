// What a move knows of itself: written into the job before each step, and all that a later process has to go
// on with.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/extent.hpp"
#include "gateway/move/phase.hpp"
#include "gateway/move/request.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// Of a move's job.
inline constexpr std::string_view migrate_kind = "migrate";

/// How a disk gets to the other host.
enum class DiskRoute : std::uint8_t {
  gateway,  ///< the other host's gateway writes the file or device
  through,  ///< the other host's gateway passes on to the hypervisor there, which alone has the image open
            ///< (qcow2)
  direct,   ///< network storage that this gateway writes itself
  shared,   ///< both hosts have the storage: nothing is copied
  rehomed,  ///< an export of this gateway, whose storage becomes network storage that the hypervisor there
            ///< then opens itself
};
std::string_view to_string(DiskRoute route) noexcept;

/// Who moves a machine that runs.
enum class MoveWayKind : std::uint8_t {
  intercept,  ///< libvirt, with its mirrors intercepted
  qmp,        ///< we, by the monitors of two QEMUs
  through,    ///< we by way of storage of both hosts, and libvirt the memory
};
std::string_view to_string(MoveWayKind way) noexcept;

struct MoveDiskState {
  std::string target{};  ///< "vda"
  std::string source{};  ///< where it is now, for people
  std::string source_format{};
  std::string uri{};  ///< where it goes
  std::string format{};
  DiskRoute route = DiskRoute::gateway;
  std::string reason{};  ///< of the route, in words
  std::uint64_t size_bytes = 0;
  std::string drive{};        ///< the export that the hypervisor here asks for: "drive-virtio-disk0"
  Range source_part{};        ///< the disk is this part of its storage here; empty: all of it
  std::string export_name{};  ///< at the other gateway
  std::string own_export{};   ///< of this gateway, that the hypervisor here has the disk from
  std::string own_storage{};  ///< what that export is on when the disk goes over
  bool was_created = false;
  bool is_taken_up = false;
  bool starts_zeroed = false;    ///< not written down: it holds only until the first byte is sent
  bool is_block_device = false;  ///< at the target
};

/// How long the guest stood still, by part. Nanoseconds of this host's steady clock would mean nothing to
/// others: these are lengths, in microseconds.
struct PauseParts {
  std::uint64_t until_flush_us = 0;   ///< from the stop until the hypervisor asked for the first flush
  std::uint64_t drain_us = 0;         ///< the window drained, the targets flushed, the barrier recorded
  std::uint64_t device_state_us = 0;  ///< from then until the guest was resumed on the target
  std::uint64_t total_us = 0;
  std::uint64_t hypervisor_ms = 0;  ///< as the hypervisor itself counts it
};

/// Microseconds; 0 where `to` is not after `from`.
std::uint64_t us_between(TimePoint from, TimePoint to) noexcept;

struct PhaseTime {
  Phase phase = Phase::planned;
  std::int64_t at_ms = 0;  ///< since the epoch
};

struct MoveState {
  Phase phase = Phase::planned;
  std::string machine{};  ///< UUID
  MoveWayKind way = MoveWayKind::intercept;
  bool was_paused = false;
  bool is_fenced = false;  ///< paused on the source by this move, until the target says that it does not run
  bool is_persistent = true;
  bool is_cold = false;
  std::vector<MoveDiskState> disks{};
  std::string destination_xml{};
  std::string persistent_xml{};
  std::string replacement{};  ///< the job that replaces the storage of exports; empty: none, or not yet
  std::vector<PhaseTime> timeline{};
  std::optional<PauseParts> pause{};
  std::vector<std::string> warnings{};
  std::vector<std::string> leftovers{};  ///< what is left that somebody has to remove, in words
};
std::string to_json(const MoveState& state);
Result<MoveState> parse_move_state(std::string_view json);

/// Which route a disk of the request takes. `is_running`: the machine, whose hypervisor then opens the target
/// early.
DiskRoute route_of(std::string_view scheme, std::string_view format, bool is_running) noexcept;

}  // namespace diskferry
