// The disks that moves bring to this host: made, offered over NBD to the one gateway that writes them, and
// let go of. What a gateway does when another one's coordinator calls (target_gateway.hpp). What was made is
// written down in a file for each move, so that after a crash the exports are there again and nothing is
// forgotten that somebody has to remove.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/sync.hpp"
#include "gateway/move/target_gateway.hpp"
#include "gateway/nbd/server.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace diskferry {

struct TargetDisksOptions {
  std::string state_folder{};  ///< where the records are kept: one file a move
  std::string move_folder{};   ///< in it each move gets a folder for the sockets of hypervisors
  /// Who the hypervisor runs as; the folders are given to that user where we may. -1: left as they are.
  std::int64_t hypervisor_uid = -1;
  std::int64_t hypervisor_gid = -1;
  /// Clients prove their names (certificates): exports are then for the client only that asked for them.
  bool clients_have_names = true;
};

/// A disk that some move made or uses here, for lists of what is left over.
struct TargetDiskRecord {
  TargetDiskRequest request{};
  std::string client{};
  bool was_created = false;
  bool is_left = false;    ///< by an attempt that failed: for the next one, or for removal
  bool is_kept = false;    ///< it is the machine's own: the move has still to let go of it, and no more
  std::string identity{};  ///< of the storage when it was left: nobody may have written to it since
};

/// Thread: any. Lifetime: stop() before destruction; context and server outlive it.
class TargetDisks {
 public:
  TargetDisks(DriverContext& context, nbd_server::Server& server, TargetDisksOptions options);
  ~TargetDisks();
  TargetDisks(const TargetDisks&) = delete;
  TargetDisks& operator=(const TargetDisks&) = delete;

  /// Reads the records and offers the disks of moves that have not ended. Errors: permission, io, corrupt (a
  /// record).
  Task<Result<void>> start();
  /// Changes nothing.
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest request);
  /// An earlier move of the same machine and client, whose end did not come through, is over: its disks are
  /// left. Errors: already_exists, mismatch (a disk of another size is there), in_use (another move has it),
  /// invalid_argument, and those of creating and opening.
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest request, std::string client);
  /// Flushes and withdraws. A move that is not known is a success: it is done. After an error the record is
  /// still there, and the call can be repeated; disks that were to be kept are not removed by any later call.
  Task<Result<void>> finish(std::string move, TargetEnd end, std::string client);
  std::vector<TargetDiskRecord> records() const;
  /// Withdraws everything for now; the records stay.
  Task<void> stop();

 private:
  struct Disk;
  struct Move;
  static PreparedDisk prepared(const Disk& disk);
  Task<Result<void>> make_storage(TargetDiskRequest request, Disk& disk);
  Task<Result<std::shared_ptr<BlockDevice>>> open(TargetDiskRequest request, bool is_again);
  /// `is_again`: by a gateway that came back while the move goes on.
  Task<Result<void>> offer(Disk& disk, std::string client, bool is_again);
  Task<Result<void>> withdraw(Disk& disk);
  // All of these hold `changing_`.
  Task<Result<void>> end_superseded(TargetDiskRequest request, std::string client);
  Task<Result<void>> end_move(std::string move, TargetEnd end);
  Task<Result<void>> give_to_machine(Move& move, std::string id);
  Task<Result<void>> end_disk(Disk& disk, TargetEnd end);
  Task<Result<void>> write_record(std::string move);
  Task<Result<void>> remove_record(std::string move);
  Task<Result<void>> load_record(std::string path);
  Result<void> make_folder(const std::string& move) const;
  bool was_left_for(const TargetDiskRequest& request) const;
  /// And an earlier attempt created it, so that this one may remove it.
  bool was_made_for(const TargetDiskRequest& request) const;
  /// And nobody has written to it since: what is known of its content still holds.
  Task<Result<bool>> is_as_it_was_left(TargetDiskRequest request);
  /// One disk at a time is written to one storage, and one client takes part in a move. Errors: in_use.
  Task<Result<void>> refuse_what_others_use(TargetDiskRequest request, std::string client);
  /// What earlier attempts left and `request` takes up is not theirs any more.
  Task<Result<void>> forget_left(TargetDiskRequest request);

  DriverContext& context_;
  nbd_server::Server& server_;
  const TargetDisksOptions options_;
  AsyncMutex changing_;  // one change at a time; held across storage calls
  mutable std::mutex guard_;
  std::map<std::string, std::unique_ptr<Move>> moves_;
};

/// The next reads of the files of a move come from their storage. Changes nothing else.
Task<void> drop_target_caches(DriverContext& context, std::vector<TargetDiskRecord> records,
                              std::string move);

/// Where the hypervisor of the target listens for the disks of a move, on either host.
std::string move_socket(const std::string& move_folder, const std::string& move);
/// Errors: invalid_argument for an id that is no plain word (it becomes part of paths).
Result<void> check_move_id(std::string_view move);

}  // namespace diskferry
