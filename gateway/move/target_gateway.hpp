// The gateway of the host that a machine moves to, as the coordinator sees it: it makes disks, offers them
// over NBD for as long as the move lasts, and lets go of them. An interface, because the client of the
// control API is a room above this one; what the other side does with the calls is target_disks.hpp.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task.hpp"
#include "gateway/move/storage_view.hpp"
#include "gateway/move/target_facts.hpp"
#include "gateway/move/target_machine.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

struct TargetDiskRequest {
  std::string move{};     ///< the move's id: letters, digits and '-'
  std::string machine{};  ///< its UUID: what an earlier attempt of the same machine left is taken up again
  std::string disk{};     ///< "vda"
  /// As that host names it. Empty: no disk comes to it, only the folder for the hypervisor's socket is made.
  std::string uri{};
  std::string format{};
  std::uint64_t size_bytes = 0;
  /// What is there may be overwritten. Without it, what is there is refused, but for what an earlier attempt
  /// left.
  bool overwrite = false;
  /// The destination's QEMU has the image open and writes it; the gateway passes on to the NBD server of that
  /// QEMU, which will listen in the move's folder. For formats that only one program may have open.
  bool through_hypervisor = false;
  std::string hypervisor_export{};  ///< its name there: "drive-virtio-disk0"
  /// The monitor of the QEMU that has the disk and waits for the machine; empty: libvirt starts one.
  std::string monitor{};
};
std::string to_json(const TargetDiskRequest& request);
Result<TargetDiskRequest> parse_target_disk_request(std::string_view json);

std::string to_json(const TargetDiskFacts& facts);
Result<TargetDiskFacts> parse_target_disk_facts(std::string_view json);

struct PreparedDisk {
  std::string export_name{};
  bool was_created = false;
  bool is_taken_up = false;      ///< it holds what an earlier attempt wrote
  bool starts_zeroed = false;    ///< it was made just now: every byte reads as zero
  bool is_block_device = false;  ///< and no file: the machine's definition has to say so
};
std::string to_json(const PreparedDisk& disk);
Result<PreparedDisk> parse_prepared_disk(std::string_view json);

/// Whom the gateway is to reach.
struct ReachRequest {
  std::string address{};  ///< "https://host:port"
};
std::string to_json(const ReachRequest& request);
/// Errors: invalid_argument (what is no https address, too).
Result<ReachRequest> parse_reach_request(std::string_view json);

enum class TargetEnd : std::uint8_t {
  keep,   ///< let go; the disks stay: they are the machine's now
  leave,  ///< let go; the disks stay for another attempt, and are listed as left over
  remove  ///< let go, and remove what this move made
};
std::string_view to_string(TargetEnd end) noexcept;
Result<TargetEnd> parse_target_end(std::string_view text);

struct FinishRequest {
  std::string move{};
  TargetEnd end = TargetEnd::keep;
};
std::string to_json(const FinishRequest& request);
Result<FinishRequest> parse_finish_request(std::string_view json);

std::string to_json(const GatewayFacts& facts);
Result<GatewayFacts> parse_gateway_facts(std::string_view json);

/// How much may be sent to learn the rate between two hosts, and how long that may take.
struct LinkProbe {
  std::uint64_t bytes_max = 64ull << 20;
  Duration time_max = std::chrono::seconds(2);
};

/// Errors of all: gone (the gateway cannot be reached), timed_out, permission, and those of making and
/// opening images. Each can be repeated: what is done already stays as it is.
class TargetGateway {
 public:
  virtual ~TargetGateway() = default;
  virtual Task<Result<GatewayFacts>> facts() = 0;
  virtual Task<Result<TargetDiskFacts>> look(TargetDiskRequest request) = 0;
  /// How that host sees a storage which may be shared. Errors also: unsupported, where it cannot be asked.
  virtual Task<Result<StorageView>> see(StorageQuestion question);
  /// Makes the disk where it is not there, and offers it, writable, to this client only.
  virtual Task<Result<PreparedDisk>> prepare(TargetDiskRequest request) = 0;
  /// The next reads of a move's disks come from the storage there. Errors also: unsupported.
  virtual Task<Result<void>> drop_caches(std::string move);
  /// Flushes and withdraws all disks of a move. Not an error where there are none.
  virtual Task<Result<void>> finish(std::string move, TargetEnd end) = 0;
  /// Asks the QEMU that waits there for a machine of a move without libvirt. Errors: as TargetMachines::call.
  virtual Task<Result<TargetMachineAnswer>> machine(TargetMachineCall call) = 0;
  /// The URI under which this host opens an export of it.
  virtual Result<std::string> export_uri(const PreparedDisk& disk, unsigned connections) const = 0;
  /// Whom its certificate names; empty where none was shown.
  virtual std::string certificate_name() const { return {}; }
  /// Has it connect to the gateway at `address`, and returns what that one says of itself. Errors:
  /// unsupported (it does not know how, or has no way of its own).
  virtual Task<Result<GatewayFacts>> reach(std::string address);
  /// Sends it bytes that it throws away, on several connections, until the limits are reached. Returns bytes
  /// a second. Errors: as reach().
  virtual Task<Result<std::uint64_t>> measure_link(LinkProbe limits);
  virtual Task<void> close() = 0;
};

}  // namespace diskferry
