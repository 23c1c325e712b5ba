// The order is the point: the record is written before a disk is made, the disk is made before it is offered,
// and withdrawn before it is removed.
#include "gateway/move/target_disks.hpp"

#include "drivers/image/image.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/target_disks_parts.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry {

namespace {
constexpr std::size_t move_id_bytes_max = 64;

CopyRequest creation(const ImageUri& uri, const TargetDiskRequest& request) {
  CopyRequest copy;
  copy.target = uri;
  copy.target_format = request.format;
  copy.existing = request.overwrite ? CopyRequest::Existing::overwrite : CopyRequest::Existing::refuse;
  // A QEMU that waits for the machine has it open: it stays the image that it is, and gets another content.
  if (request.overwrite && !request.monitor.empty()) copy.existing = CopyRequest::Existing::use;
  return copy;
}

}  // namespace

std::string move_socket(const std::string& move_folder, const std::string& move) {
  return move_folder + "/" + move + "/nbd.sock";
}

Result<void> check_move_id(std::string_view move) {
  const auto is_plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-'; };
  if (!move.empty() && move.size() <= move_id_bytes_max && std::ranges::all_of(move, is_plain) &&
      move.front() != '-')
    return {};
  return unexpected(fail(ErrorKind::invalid_argument, "take part in a move").why("its id is no plain word"));
}

TargetDisks::TargetDisks(DriverContext& context, nbd_server::Server& server, TargetDisksOptions options)
    : context_(context), server_(server), options_(std::move(options)) {}
TargetDisks::~TargetDisks() = default;

Result<void> TargetDisks::make_folder(const std::string& move) const {
  const std::string path = options_.move_folder + "/" + move;
  std::error_code failed;
  std::filesystem::create_directories(options_.move_folder, failed);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return unexpected(errno_error(errno, "make the folder", printable(path)));
  if (options_.hypervisor_uid < 0 || ::geteuid() != 0) return {};
  if (::lchown(path.c_str(), static_cast<uid_t>(options_.hypervisor_uid),
               static_cast<gid_t>(options_.hypervisor_gid)) != 0)
    return unexpected(errno_error(errno, "give the folder to the hypervisor's user", printable(path)));
  return {};
}

Task<Result<TargetDiskFacts>> TargetDisks::look(TargetDiskRequest request) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  const CopyRequest copy = creation(uri, request);
  TargetDiskFacts facts;
  auto state = co_await look_at_target(context_, copy);
  if (!state) {
    facts.problem = state.error().message();
    co_return facts;
  }
  facts.exists = state->volume.exists;
  facts.space_available_bytes = state->volume.free_bytes.value_or(0);
  if (!facts.exists && !state->volume.obstacles.empty())
    facts.problem = state->volume.obstacles.front().message();
  if (!facts.exists) co_return facts;
  DISKFERRY_CO_TRY(facts.identity, co_await storage_identity(context_, uri));
  auto image = co_await open_image(context_, uri, {.format = request.format, .force_share = true});
  if (image) {
    facts.size_bytes = image->device().size_bytes();
    facts.block_bytes = image->device().info().block_bytes;
    (void)co_await image->close();
  }
  if (!request.overwrite && !was_left_for(request)) facts.problem = "it exists already";
  co_return facts;
}

Task<Result<void>> TargetDisks::make_storage(TargetDiskRequest request, Disk& disk) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  const CopyRequest copy = creation(uri, request);
  DISKFERRY_CO_TRY(const TargetState state, co_await look_at_target(context_, copy));
  if (state.volume.exists && disk.was_left) co_return Result<void>{};
  DISKFERRY_CO_TRY(const TargetAction action, decide_target(state, copy));
  if (action == TargetAction::open) co_return Result<void>{};
  disk.record.was_created = disk.record.was_created || action == TargetAction::create;
  DISKFERRY_CO_CHECK(co_await create_target(context_, copy, request.size_bytes));
  disk.is_fresh = action == TargetAction::create;
  co_return Result<void>{};
}

PreparedDisk TargetDisks::prepared(const Disk& disk) {
  const TargetDiskRequest& request = disk.record.request;
  const auto uri = ImageUri::parse(request.uri);
  return {.export_name = export_name(request),
          .was_created = disk.record.was_created,
          .is_taken_up = disk.is_taken_up,
          .starts_zeroed = disk.is_fresh,
          .is_block_device = uri && is_block_device(*uri)};
}

Task<Result<PreparedDisk>> TargetDisks::prepare(TargetDiskRequest request, std::string client) {
  DISKFERRY_CO_CHECK(check_move_id(request.move));
  DISKFERRY_CO_TRY(const auto lock, co_await changing_.lock());
  DISKFERRY_CO_CHECK(make_folder(request.move));
  if (request.uri.empty()) co_return PreparedDisk{};
  DISKFERRY_CO_CHECK(check_move_id(request.disk));
  DISKFERRY_CO_CHECK(co_await end_superseded(request, client));
  DISKFERRY_CO_CHECK(co_await refuse_what_others_use(request, client));
  const bool was_left = was_left_for(request);
  DISKFERRY_CO_TRY(const bool is_taken_up, co_await is_as_it_was_left(request));
  const bool was_made_for_it = was_made_for(request);
  Disk* disk = nullptr;
  {
    std::lock_guard guard(guard_);
    auto& move = moves_[request.move];
    if (!move) move = std::make_unique<Move>();
    disk = &move->disks[request.disk];
  }
  if (disk->offered) {
    if (to_json(disk->record.request) != to_json(request))
      co_return unexpected(fail(ErrorKind::in_use, "prepare the disk", export_name(request))
                               .why("it is offered as another disk"));
    // It may have been written to since it was offered first.
    disk->is_fresh = false;
    co_return prepared(*disk);
  }
  const bool was_created = disk->record.was_created || was_made_for_it;
  disk->record = {.request = request, .client = client, .was_created = was_created};
  disk->was_left = was_left || was_created;
  disk->is_taken_up = is_taken_up;
  DISKFERRY_CO_CHECK(co_await write_record(request.move));
  // From here on it is this move's alone: whoever ends the earlier one must not remove it.
  DISKFERRY_CO_CHECK(co_await forget_left(request));
  if (auto made = co_await make_storage(request, *disk); !made) {
    if (!disk->record.was_created) {
      std::lock_guard guard(guard_);
      moves_[request.move]->disks.erase(request.disk);
    }
    (void)co_await write_record(request.move);
    co_return unexpected(std::move(made).error());
  }
  DISKFERRY_CO_CHECK(co_await write_record(request.move));
  DISKFERRY_CO_CHECK(co_await offer(*disk, client, false));
  co_return prepared(*disk);
}

Task<Result<void>> TargetDisks::end_superseded(TargetDiskRequest request, std::string client) {
  if (request.machine.empty()) co_return Result<void>{};
  std::vector<std::string> over;
  for (const TargetDiskRecord& record : records()) {
    if (record.request.move != request.move && record.request.machine == request.machine &&
        record.client == client && !record.is_left && !record.is_kept)
      over.push_back(record.request.move);
  }
  for (const std::string& move : over) DISKFERRY_CO_CHECK(co_await end_move(move, TargetEnd::leave));
  co_return Result<void>{};
}

Task<Result<void>> TargetDisks::finish(std::string move, TargetEnd end, std::string client) {
  DISKFERRY_CO_CHECK(check_move_id(move));
  DISKFERRY_CO_TRY(const auto lock, co_await changing_.lock());
  for (const TargetDiskRecord& record : records()) {
    if (record.request.move == move && record.client != client)
      co_return unexpected(fail(ErrorKind::permission, "end the move", move).why("it is another client's"));
  }
  co_return co_await end_move(std::move(move), end);
}

Task<Result<void>> TargetDisks::end_move(std::string move, TargetEnd end) {
  Move* found = nullptr;
  {
    std::lock_guard guard(guard_);
    if (const auto at = moves_.find(move); at != moves_.end()) found = at->second.get();
  }
  Result<void> result;
  if (found != nullptr) {
    if (end == TargetEnd::keep) DISKFERRY_CO_CHECK(co_await give_to_machine(*found, move));
    for (auto& [name, disk] : found->disks) {
      auto ended = co_await end_disk(disk, end);
      if (!ended && result) result = std::move(ended);
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(options_.move_folder + "/" + move, ignored);
  // What did not succeed stays written down, so that a repeat can make up for it.
  if (found != nullptr && (end == TargetEnd::leave || !result)) {
    auto written = co_await write_record(std::move(move));
    co_return result ? std::move(written) : std::move(result);
  }
  {
    std::lock_guard guard(guard_);
    moves_.erase(move);
  }
  co_return co_await remove_record(std::move(move));
}

Task<Result<void>> TargetDisks::give_to_machine(Move& move, std::string id) {
  // First of all: from here on nobody may remove them, and no gateway that comes back offers them.
  for (auto& [name, disk] : move.disks) {
    disk.record.is_kept = true;
    disk.record.is_left = false;
    disk.record.was_created = false;
  }
  co_return co_await write_record(std::move(id));
}

Task<Result<void>> TargetDisks::end_disk(Disk& disk, TargetEnd end) {
  auto withdrawn = co_await withdraw(disk);
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(disk.record.request.uri));
  if (end == TargetEnd::remove) {
    // Storage that failed the last flush is what such a move ends with: only the removal counts.
    if (!disk.record.was_created) co_return Result<void>{};
    co_return co_await remove_created_target(context_, uri);
  }
  if (end == TargetEnd::leave) {
    disk.record.is_left = true;
    disk.record.identity.clear();
    // What was not flushed is not known to be there: the next attempt sends it again.
    auto identity = co_await storage_identity(context_, uri);
    if (identity && withdrawn) disk.record.identity = *std::move(identity);
  }
  co_return withdrawn;
}

Task<void> TargetDisks::stop() {
  auto lock = co_await changing_.lock();
  for (auto& [id, move] : moves_)
    for (auto& [name, disk] : move->disks) (void)co_await withdraw(disk);
}

}  // namespace diskferry
