// A connection to a libvirt daemon, and the few calls that moving a machine takes. Every call of libvirt
// blocks, and may hang for good, so each runs on a thread of its own; nothing of libvirt's is seen outside
// the .cpp files.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace diskferry {

class LibvirtConnection;

/// What virDomainMigrateToURI3 is asked for. Names as libvirt's typed parameters.
struct LibvirtMigration {
  std::string domain{};
  std::string destination{};             ///< libvirt URI as the *source's libvirtd* reaches it (peer to peer)
  std::string destination_xml{};         ///< of the running machine there
  std::string persistent_xml{};          ///< what stays defined there
  std::vector<std::string> disks{};      ///< disk targets that are copied; empty: none, memory only
  std::string disks_uri{};               ///< "unix:///run/.../x.sock": where the source's QEMU mirrors to
  std::string memory_uri{};              ///< "tcp://host"; empty: libvirt's choice
  std::uint64_t memory_bytes_per_s = 0;  ///< 0: no bound
  bool is_live = true;
  bool tls = false;  ///< of the memory stream
  std::string tls_destination{};
  bool auto_converge = false;
  bool post_copy = false;             ///< allow switching to it later (start_post_copy)
  unsigned parallel_connections = 0;  ///< multifd; 0: off
  std::string compression{};          ///< "", "xbzrle", "mt", "zlib", "zstd"
  bool synchronous_disk_writes = false;
  /// What is not copied is proved to be shared, whatever libvirt concludes from the kind of file system.
  bool is_storage_proved = false;
  bool arrives_paused = false;   ///< it is paused there, its images not opened for writing, until resume()
  bool undefine_source = false;  ///< off: it stays defined there until the source is released
  bool persist_destination = true;
};

/// Progress of the job a domain is in, from virDomainGetJobStats.
struct LibvirtJob {
  bool is_active = false;
  std::string phase{};  ///< "memory", "disk", ... where it can be told
  std::uint64_t memory_total_bytes = 0;
  std::uint64_t memory_processed_bytes = 0;
  std::uint64_t memory_remaining_bytes = 0;
  std::uint64_t memory_bytes_per_s = 0;
  std::uint64_t memory_dirty_pages_per_s = 0;
  std::uint64_t page_bytes = 0;
  std::uint64_t memory_iterations = 0;
  std::uint64_t disk_total_bytes = 0;
  std::uint64_t disk_processed_bytes = 0;
  std::uint64_t disk_remaining_bytes = 0;
  std::optional<std::uint64_t> downtime_ms{};  ///< expected while it runs, measured when it has ended
  std::optional<std::uint64_t> setup_ms{};
  std::uint64_t elapsed_ms = 0;
};

/// What a host offers, for preflight checks.
struct LibvirtHost {
  std::string hostname{};
  std::string host_uuid{};
  std::uint64_t libvirt_version = 0;     ///< 9000000 for 9.0.0
  std::uint64_t hypervisor_version = 0;  ///< 7002022 for QEMU 7.2.22
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_free_bytes = 0;
  unsigned cpus = 0;
  std::vector<std::string> networks{};                   ///< active ones
  std::map<std::string, std::string> network_bridges{};  ///< network -> bridge
  std::vector<std::string> interfaces{};                 ///< host interfaces and bridges libvirt lists
  std::string capabilities_xml{};
};

/// A copy of a running disk to another place (virDomainBlockCopy).
struct LibvirtBlockCopy {
  std::string target{};    ///< "vda"
  std::string disk_xml{};  ///< the <disk> element of the place; it exists already, and is as large
  std::uint32_t granularity_bytes = 0;  ///< 0: QEMU's choice; a power of two, 512 to 64 MiB
  std::uint64_t bytes_per_s = 0;        ///< 0: no bound
  bool synchronous_writes = false;      ///< the guest's writes wait for the target
};

/// A job of a disk, from virDomainGetBlockJobInfo.
struct LibvirtBlockJob {
  bool is_copy = false;
  std::uint64_t done_bytes = 0;
  std::uint64_t total_bytes = 0;  ///< 0: it has not begun
  /// All was copied once. Whether it can be pivoted only pivot_block_copy() tells.
  bool is_all_copied = false;
};

struct LibvirtDiskCounters {
  std::uint64_t read_requests = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t write_requests = 0;
  std::uint64_t written_bytes = 0;
};

/// One domain of a host, for finding what is in the way of a move.
struct LibvirtDomain {
  std::string name{};
  std::string uuid{};
  bool is_active = false;
};

/// A change libvirt told of. `detail` in libvirt's words ("suspended: migrated").
struct LibvirtEvent {
  enum class Kind : std::uint8_t {
    defined,
    undefined,
    started,
    suspended,
    resumed,
    stopped,
    shutdown,
    crashed,
    other
  };
  Kind kind = Kind::other;
  std::string domain{};
  std::string detail{};
  std::uint64_t at_ns = 0;  ///< steady clock
};

/// Thread: any; calls may run side by side. Lifetime: close() before destruction; `context` outlives it.
/// Errors of every call: gone (the daemon or the connection), not_found (no such domain), permission, in_use
/// (the domain is busy with another job), unsupported, timed_out (60 s; the call may still take effect), io.
/// What libvirt said is in why().
/// Cancel: has no effect on any call but migrate(): each is waited for, so that it is known what it did.
class Libvirt {
 public:
  /// "qemu:///system", "qemu+tcp://host/system", "qemu+tls://...", "qemu+ssh://...". Keep-alive is on: a peer
  /// that is silent for about 15 s makes calls fail with gone.
  static Task<Result<std::unique_ptr<Libvirt>>> connect(DriverContext& context, std::string uri);
  ~Libvirt();
  Libvirt(const Libvirt&) = delete;
  Libvirt& operator=(const Libvirt&) = delete;

  const std::string& uri() const noexcept;
  Task<Result<LibvirtHost>> host();
  /// All of them, running or only defined.
  Task<Result<std::vector<LibvirtDomain>>> domains();
  /// libvirt's XML of what machines of this emulator, architecture, machine and type can have there; what is
  /// empty is the host's default (virConnectGetDomainCapabilities). Errors also: unsupported,
  /// invalid_argument (no such emulator or machine).
  Task<Result<std::string>> domain_capabilities(VmDescription vm);
  /// Definition parsed, state, snapshots and persistence filled in.
  Task<Result<VmDescription>> describe(std::string domain);
  enum class Xml : std::uint8_t { live, migratable, inactive };
  /// The migratable and inactive forms hold passwords (of a VNC display), or the machine would lose them on
  /// its way: never to be logged.
  Task<Result<std::string>> xml(std::string domain, Xml form);
  /// absent where there is no such domain.
  Task<Result<VmState>> state(std::string domain);
  /// The same, and why it is paused.
  Task<Result<VmCondition>> condition(std::string domain);
  /// The guest-visible size of a disk of a running domain (virDomainGetBlockInfo).
  Task<Result<std::uint64_t>> disk_bytes(std::string domain, std::string target);

  /// Migrates peer to peer and waits for the end, however long that takes, on a thread of its own.
  /// Cancel: aborts the job (libvirt rolls back), then waits; one that was done all the same has succeeded.
  /// Errors also: cancelled, mismatch, invalid_argument. After `gone` it may go on without us: connect again
  /// and look at both ends. `gone` is also what a source says that lost its destination.
  Task<Result<void>> migrate(LibvirtMigration migration);
  /// Where the domain is in no job, one that is not active. Can take seconds while a bounded copy begins.
  Task<Result<LibvirtJob>> job(std::string domain);
  /// The statistics of the last job that ended there (with the downtime). After a migration it is there while
  /// the source stays defined; the destination has it in any case.
  Task<Result<LibvirtJob>> completed_job(std::string domain);
  Task<Result<void>> abort_job(std::string domain);
  Task<Result<void>> set_memory_bytes_per_s(std::string domain, std::uint64_t bytes_per_s);
  Task<Result<void>> set_downtime_max_ms(std::string domain, std::uint64_t ms);
  Task<Result<void>> start_post_copy(std::string domain);

  Task<Result<void>> define(std::string xml);
  /// Nothing is done where the domain is absent. Deletes what libvirt keeps with a definition (a saved memory
  /// image, metadata of snapshots and checkpoints), but nothing of the guest's: disks, NVRAM and TPM stay.
  Task<Result<void>> undefine(std::string domain);
  Task<Result<void>> start(std::string domain);
  Task<Result<void>> resume(std::string domain);
  Task<Result<void>> suspend(std::string domain);
  /// Ends it at once. For rollback of a half-made destination and for fencing only.
  Task<Result<void>> destroy(std::string domain);

  /// "identical", "superset" or an error of kind mismatch that says what is missing
  /// (virConnectCompareHypervisorCPU).
  Task<Result<std::string>> compare_cpu(VmDescription vm);

  /// Copies a running disk to another place and keeps both the same until it is pivoted or cancelled. Returns
  /// once the copy has begun; the target exists already. For a persistent domain too.
  /// Errors also: in_use (the disk has a job).
  Task<Result<void>> start_block_copy(std::string domain, LibvirtBlockCopy copy);
  /// The job of a disk; nullopt where it has none.
  Task<Result<std::optional<LibvirtBlockJob>>> block_job(std::string domain, std::string target);
  /// Ends a copy by going over to the target. Errors also: in_use (the two are not the same yet: try again).
  Task<Result<void>> pivot_block_copy(std::string domain, std::string target);
  /// Ends a copy, or another job of the disk, and stays with the source. Waits until it has ended.
  Task<Result<void>> cancel_block_job(std::string domain, std::string target);
  /// How fast a disk's job may be. 0: no bound. Errors also: unsupported (there is no job).
  Task<Result<void>> set_block_job_speed(std::string domain, std::string target, std::uint64_t bytes_per_s);
  /// Passes a command (QMP, JSON) to the machine's QEMU, and returns its answer, which may be an error of its
  /// own. libvirt marks the machine as tainted by that, and knows nothing of what it did.
  Task<Result<std::string>> monitor_command(std::string domain, std::string command);
  /// What the guest has read and written since it started there.
  Task<Result<LibvirtDiskCounters>> disk_counters(std::string domain, std::string target);
  /// How fast the guest dirties its memory, measured for `seconds` (1 to 60). Needs no migration.
  /// Cancel: ends the wait. Errors also: cancelled, timed_out (no figure came).
  Task<Result<std::uint64_t>> dirty_bytes_per_s(std::string domain, unsigned seconds);

  /// Calls `handler` (from any thread; it must be cheap) for lifecycle events of all domains until close().
  Task<Result<void>> watch(std::function<void(const LibvirtEvent&)> handler);
  Task<void> close();

 private:
  explicit Libvirt(std::shared_ptr<LibvirtConnection> connection);
  std::shared_ptr<LibvirtConnection> connection_;
};

}  // namespace diskferry
