// What an operator asks for when the storage behind exports is to be replaced while clients use them, and
// what such a job knows of itself: written into the job before each step.
#pragma once

#include "diskferry/error.hpp"
#include "diskferry/extent.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/phase.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

inline constexpr std::size_t replace_disks_max = 64;

struct ReplaceDisk {
  std::string name{};    ///< of the export
  std::string uri{};     ///< where it goes: a path on this host, or any storage this gateway can open
  std::string format{};  ///< "raw" or "qcow2"; empty: by the name's ending
  /// Of a machine of this host whose disk is not on the gateway yet; empty: an export. Filled in by the
  /// gateway where `name` is "MACHINE:DISK" and no export has it.
  std::string domain{};
  std::string disk{};
  /// UUID of libvirt's secret with the key of a target that QEMU opens itself, where its URI names a user.
  std::string secret{};
};

/// What is done where the old storage cannot be read.
enum class OnReadError : std::uint8_t {
  stop,   ///< the job is paused, and tells where
  skip,   ///< the new storage gets zeros there; each such place is listed
  abort,  ///< the job is undone
};
inline constexpr std::array all_on_read_error{OnReadError::stop, OnReadError::skip, OnReadError::abort};
std::string_view to_string(OnReadError what) noexcept;
/// Errors: invalid_argument.
Result<OnReadError> on_read_error_named(std::string_view name);

struct ReplaceRequest {
  std::vector<ReplaceDisk> disks{};  ///< all change places at one moment, or none does
  bool overwrite = false;            ///< a target that is there already may be overwritten
  std::uint64_t bytes_per_s = 0;     ///< for all disks together; 0: no bound
  std::uint64_t max_pause_ms = 100;
  std::uint64_t max_write_latency_ms = 10;
  std::uint64_t deadline_s = 0;  ///< from the beginning of the job; 0: none
  OnReadError on_read_error = OnReadError::stop;
  bool commit_by_hand = false;  ///< in step is kept until somebody says so
  /// Milliseconds since the epoch before which they do not change places; 0: as soon as they are in step.
  std::int64_t commit_at_ms = 0;
  /// The old storage is kept in step for so long, for a fallback; 0: let go at once.
  std::uint64_t retain_s = 0;
  bool remove_source = false;  ///< when the old storage is let go
  unsigned connections = 0;    ///< to the target, a disk; 0: by the configuration
  /// A machine's disk goes to storage that QEMU opens itself, and is on no export from then on.
  bool rehome = false;
};

/// Errors: invalid_argument, naming the field.
Result<ReplaceRequest> parse_replace_request(std::string_view json);
std::string to_json(const ReplaceRequest& request);
/// What can be said about a request alone. Errors: invalid_argument.
Result<void> check(const ReplaceRequest& request);
/// Whether it can begin now, which cannot be said of what is read again later. Errors: invalid_argument.
Result<void> check_time(const ReplaceRequest& request, std::int64_t now_ms);
/// The hypervisor moves a machine's disk: onto the gateway, where there is no export yet, or off it.
bool is_adoption(const ReplaceRequest& request) noexcept;
/// The exports' names, as a job's subject.
std::string subject_of(const ReplaceRequest& request);

/// Of the request, what can be changed while the job runs.
struct ReplaceLimits {
  std::uint64_t bytes_per_s = 0;
  std::uint64_t max_pause_ms = 100;
  std::uint64_t max_write_latency_ms = 10;
  std::int64_t deadline_at_ms = 0;  ///< since the epoch; 0: none
  OnReadError on_read_error = OnReadError::stop;
};
ReplaceLimits limits_of(const ReplaceRequest& request, std::int64_t begun_ms);
/// What is to be changed; the rest stays.
struct ReplaceSettings {
  std::optional<std::uint64_t> bytes_per_s{};
  std::optional<std::uint64_t> max_pause_ms{};
  std::optional<std::uint64_t> max_write_latency_ms{};
  std::optional<std::uint64_t> deadline_s{};  ///< from now on; 0: none
  std::optional<std::string> on_read_error{};
};
/// Errors: invalid_argument, and then nothing is changed.
Result<ReplaceLimits> with_settings(ReplaceLimits limits, const ReplaceSettings& settings,
                                    std::int64_t now_ms);

struct ReplaceDiskState {
  std::string name{};
  std::string source{};
  std::string source_format{};
  std::vector<std::string> source_storages{};  ///< all that its content comes from, with backing images
  std::string configured{};                    ///< as the configuration named it then
  std::string uri{};
  std::string format{};
  std::uint64_t size_bytes = 0;
  bool was_created = false;
  bool is_part = false;      ///< the disk is the beginning of a target that is larger, and QEMU opens itself
  bool ends_export = false;  ///< the one that the disk is on: it is only there for this disk
  unsigned source_node = 0;  ///< QEMU's node of the export that the disk was on (VmDisk::node_index)
  std::string source_identity{};  ///< as that of the target
  /// What the target is (VolumeFacts::identity), once it is there: another one under its name has nothing of
  /// this.
  std::string target_identity{};
  /// What of the old storage could not be read and was skipped: zeros at the target.
  std::vector<Range> unreadable{};
};

/// How long guests' writes were held at the switchover, by part, in microseconds.
struct HoldParts {
  std::uint64_t drain_us = 0;   ///< what was in flight, and what was still dirty
  std::uint64_t flush_us = 0;   ///< targets and sources durable
  std::uint64_t record_us = 0;  ///< the commit written down
  std::uint64_t switch_us = 0;  ///< until guests went on
  std::uint64_t total_us = 0;
};

struct ReplaceState {
  Phase phase = Phase::planned;
  std::vector<ReplaceDiskState> disks{};
  std::vector<PhaseTime> timeline{};
  std::optional<ReplaceLimits> limits{};  ///< as they were set last; of an old record: by the request
  std::optional<HoldParts> hold{};
  unsigned switchovers = 0;  ///< odd: the targets are in charge
  std::vector<std::string> warnings{};
  std::vector<std::string> leftovers{};
};
std::string to_json(const ReplaceState& state);
Result<ReplaceState> parse_replace_state(std::string_view json);

}  // namespace diskferry
