// What is written down of the disks, and what follows from it: whose a disk is, and what is offered again.
#include "gateway/copy/identity.hpp"
#include "gateway/move/move_record.hpp"
#include "gateway/move/target_disks_parts.hpp"

#include <algorithm>
#include <filesystem>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr std::string_view record_ending = ".json";

bool is_left_for(const TargetDiskRecord& record, const TargetDiskRequest& request) {
  return record.is_left && !request.machine.empty() && record.request.uri == request.uri &&
         record.request.machine == request.machine && record.request.size_bytes == request.size_bytes &&
         record.request.format == request.format;
}
}  // namespace

bool TargetDisks::was_left_for(const TargetDiskRequest& request) const {
  return std::ranges::any_of(records(),
                             [&](const TargetDiskRecord& record) { return is_left_for(record, request); });
}

bool TargetDisks::was_made_for(const TargetDiskRequest& request) const {
  return std::ranges::any_of(records(), [&](const TargetDiskRecord& record) {
    return record.was_created && is_left_for(record, request);
  });
}

Task<Result<bool>> TargetDisks::is_as_it_was_left(TargetDiskRequest request) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  const auto all = records();
  const auto left =
      std::ranges::find_if(all, [&](const TargetDiskRecord& record) { return is_left_for(record, request); });
  if (left == all.end()) co_return false;
  DISKFERRY_CO_TRY(const std::string now, co_await storage_identity(context_, uri));
  co_return !now.empty() && now == left->identity;
}

Task<Result<void>> TargetDisks::refuse_what_others_use(TargetDiskRequest request, std::string client) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  DISKFERRY_CO_TRY(const auto keys, co_await storage_keys(context_, uri));
  const auto used = [&](std::string why) {
    return unexpected(fail(ErrorKind::in_use, "prepare the disk", export_name(request)).why(std::move(why)));
  };
  for (const TargetDiskRecord& other : records()) {
    const bool is_same_move = other.request.move == request.move;
    if (is_same_move && other.client != client) co_return used("it is another client's");
    if (other.is_left || other.is_kept || (is_same_move && other.request.disk == request.disk)) continue;
    if (other.request.uri == request.uri) co_return used("another disk of a move is written there");
    const auto other_uri = ImageUri::parse(other.request.uri);
    if (keys.empty() || !other_uri) continue;
    const auto other_keys = co_await storage_keys(context_, *other_uri);
    if (other_keys && !common_key(keys, *other_keys).empty()) co_return used("another disk of a move is written there");
  }
  co_return Result<void>{};
}

Task<Result<void>> TargetDisks::forget_left(TargetDiskRequest request) {
  std::vector<std::string> changed;
  {
    std::lock_guard lock(guard_);
    for (auto& [id, move] : moves_) {
      const auto is_left = [&](const auto& entry) {
        return id != request.move && is_left_for(entry.second.record, request);
      };
      if (std::erase_if(move->disks, is_left) > 0) changed.push_back(id);
    }
  }
  for (const std::string& id : changed) DISKFERRY_CO_CHECK(co_await write_record(id));
  co_return Result<void>{};
}

std::vector<TargetDiskRecord> TargetDisks::records() const {
  std::lock_guard lock(guard_);
  std::vector<TargetDiskRecord> all;
  for (const auto& [id, move] : moves_)
    for (const auto& [name, disk] : move->disks) all.push_back(disk.record);
  return all;
}

Task<Result<void>> TargetDisks::write_record(std::string move) {
  std::vector<TargetDiskRecord> all;
  {
    std::lock_guard lock(guard_);
    for (const auto& [name, disk] : moves_[move]->disks) all.push_back(disk.record);
  }
  if (all.empty()) co_return co_await remove_record(std::move(move));
  co_return co_await write_durably(context_, options_.state_folder + "/" + move + std::string(record_ending),
                                   to_json(all));
}

Task<Result<void>> TargetDisks::remove_record(std::string move) {
  co_return co_await remove_durably(context_,
                                    options_.state_folder + "/" + move + std::string(record_ending));
}

Task<Result<void>> TargetDisks::load_record(std::string path) {
  DISKFERRY_CO_TRY(const std::string text, co_await read_small_file(context_, path));
  auto records = parse_target_records(text);
  if (!records) co_return unexpected(std::move(records).error().in("read " + printable(path)));
  // What was still to be let go of went with the process that had it open.
  if (std::ranges::all_of(*records, &TargetDiskRecord::is_kept))
    co_return co_await remove_durably(context_, path);
  for (TargetDiskRecord& record : *records) {
    DISKFERRY_CO_CHECK(check_move_id(record.request.move));
    DISKFERRY_CO_CHECK(check_move_id(record.request.disk));
    // It would be ended under a name that is not its file's, and be back after each restart.
    if (record.request.move != std::filesystem::path(path).stem().string())
      co_return unexpected(
          fail(ErrorKind::corrupt, "read", printable(path)).why("it is the record of another move"));
    auto& move = moves_[record.request.move];
    if (!move) move = std::make_unique<Move>();
    Disk& disk = move->disks[record.request.disk];
    disk.record = std::move(record);
    disk.was_left = true;
    if (disk.record.is_left) continue;
    DISKFERRY_CO_CHECK(make_folder(disk.record.request.move));
    // Storage that is away now keeps one move from going on, not the gateway from starting.
    if (auto offered = co_await offer(disk, disk.record.client, true); !offered)
      spdlog::warn("disk {} of move {}: not offered again: {}", disk.record.request.disk,
                   disk.record.request.move, offered.error().message());
  }
  co_return Result<void>{};
}

Task<Result<void>> TargetDisks::start() {
  DISKFERRY_CO_TRY(const auto lock, co_await changing_.lock());
  std::vector<std::string> paths;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(options_.state_folder, failed))
    if (entry.path().extension() == record_ending) paths.push_back(entry.path().string());
  for (const std::string& path : paths) DISKFERRY_CO_CHECK(co_await load_record(path));
  co_return Result<void>{};
}

}  // namespace diskferry
