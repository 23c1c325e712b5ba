// What the hypervisor of the source mirrors the disks of one move into: an NBD server on a UNIX socket of
// this move alone, one export a disk, each a window in front of its target. Made by the coordinator, which
// also ends it.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/mirror/window.hpp"
#include "gateway/nbd/server.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct SourceDisksOptions {
  std::string socket{};  ///< its folder is made
  /// Who the hypervisor runs as, which alone may connect. -1: whoever we run as.
  std::int64_t hypervisor_uid = -1;
  std::int64_t hypervisor_gid = -1;
  std::uint64_t window_bytes = 64ull << 20;  ///< of all disks together
  std::uint64_t bytes_per_s = 0;             ///< of all disks together; 0: no bound
  /// Called by each flush of each disk once it is durable (Barrier::flushed).
  std::function<Task<Result<void>>()> flushed;
  /// Each disk's first flush, which the hypervisor sends when all was copied once and while the guest runs,
  /// is answered only when the target was read back and found right.
  bool verify = false;
  /// Makes the targets forget what they have in their caches, before that.
  std::function<Task<Result<void>>()> drop_caches;
};

struct SourceDisk {
  std::string target{};       ///< "vda"
  std::string export_name{};  ///< what the hypervisor asks for
  std::uint64_t size_bytes = 0;
  std::string target_uri{};  ///< opened by start()
  unsigned connections = 0;
  /// Where what is known of the target is kept between attempts; empty: nowhere.
  std::string table_path{};
  std::string target_identity{};
  bool is_taken_up = false;    ///< the target holds what the table says
  bool starts_zeroed = false;  ///< every byte of the target reads as zero
};

/// Thread: any. Lifetime: stop() before destruction; the context outlives it.
class SourceDisks {
 public:
  SourceDisks(DriverContext& context, SourceDisksOptions options);
  ~SourceDisks();
  SourceDisks(const SourceDisks&) = delete;
  SourceDisks& operator=(const SourceDisks&) = delete;

  /// Opens the targets and listens. Errors: those of opening; mismatch (a target of another size),
  /// permission. On failure nothing is left open.
  Task<Result<void>> start(std::vector<SourceDisk> disks);
  /// Everything the hypervisor wrote is durable at all targets. Errors: those of the windows.
  Task<Result<void>> make_all_durable();
  void set_window_bytes(std::uint64_t all_disks);
  void set_bytes_per_s(std::uint64_t all_disks);
  struct DiskStats {
    std::string target{};
    std::uint64_t size_bytes = 0;
    WindowStats window{};
    std::uint64_t verified_bytes = 0;
  };
  std::vector<DiskStats> stats() const;
  /// Bytes sent to all targets, zeros too.
  std::uint64_t sent_bytes() const;
  /// The hypervisor has copied everything once and sends what changed since.
  bool are_copied_once() const;
  /// The first error of a window, naming its disk.
  std::optional<Error> failure() const;
  /// The hypervisor has written to every disk.
  bool have_begun() const;
  /// Closes connections and targets; what is pending is dropped. With `keep_tables`, what the targets are
  /// known to hold is kept for a later attempt. May be repeated.
  Task<Result<void>> stop(bool keep_tables);

 private:
  struct Disk;
  Task<Result<void>> open(SourceDisk disk);
  Task<Result<void>> listen();
  Task<Result<void>> flushed(Disk& disk);
  DriverContext& context_;
  const SourceDisksOptions options_;
  std::unique_ptr<nbd_server::Server> server_;
  bool is_listening_ = false;
  std::vector<std::unique_ptr<Disk>> disks_;
};

}  // namespace diskferry
