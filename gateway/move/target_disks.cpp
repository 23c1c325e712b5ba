// The order is the point: the record is written before a disk is made, the disk is made before it is offered,
// and withdrawn before it is removed.
#include "gateway/move/target_disks.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/deferred.hpp"
#include "drivers/image/image.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/move_record.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace nbd = nbd_server;

namespace {
constexpr std::size_t move_id_bytes_max = 64;
constexpr std::string_view record_ending = ".json";
/// A hypervisor that is to start and listen: libvirt prepares the target within seconds; storage that hangs
/// takes longer.
constexpr Duration hypervisor_limit = std::chrono::seconds(60);
/// What QEMU's NBD server takes for qcow2 on any storage; smaller requests are made whole by the filter in
/// front.
constexpr std::uint32_t hypervisor_block_bytes = 4096;

std::string export_name(const TargetDiskRequest& request) {
  return request.move + "-" + request.disk;
}

CopyRequest creation(const ImageUri& uri, const TargetDiskRequest& request) {
  CopyRequest copy;
  copy.target = uri;
  copy.target_format = request.format;
  copy.existing = request.overwrite ? CopyRequest::Existing::overwrite : CopyRequest::Existing::refuse;
  // A QEMU that waits for the machine has it open: it stays the image that it is, and gets another content.
  if (request.overwrite && !request.monitor.empty()) copy.existing = CopyRequest::Existing::use;
  return copy;
}

bool is_left_for(const TargetDiskRecord& record, const TargetDiskRequest& request) {
  return record.is_left && !request.machine.empty() && record.request.uri == request.uri &&
         record.request.machine == request.machine && record.request.size_bytes == request.size_bytes &&
         record.request.format == request.format;
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

/// One disk, offered or not. `record` is what is written down of it.
struct TargetDisks::Disk {
  TargetDiskRecord record;
  bool was_left = false;     ///< by an earlier attempt: it may be used although it is there
  bool is_taken_up = false;  ///< and nobody wrote to it since
  std::shared_ptr<BlockDevice> device{};
  nbd::ExportPtr offered{};
};
struct TargetDisks::Move {
  std::map<std::string, Disk> disks;
};

TargetDisks::TargetDisks(DriverContext& context, nbd::Server& server, TargetDisksOptions options)
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

bool TargetDisks::was_left_for(const TargetDiskRequest& request) const {
  return std::ranges::any_of(records(),
                             [&](const TargetDiskRecord& record) { return is_left_for(record, request); });
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
  DISKFERRY_CO_TRY(const std::string key, co_await storage_key(context_, uri));
  const auto used = [&](std::string why) {
    return unexpected(fail(ErrorKind::in_use, "prepare the disk", export_name(request)).why(std::move(why)));
  };
  for (const TargetDiskRecord& other : records()) {
    const bool is_same_move = other.request.move == request.move;
    if (is_same_move && other.client != client) co_return used("it is another client's");
    if (other.is_left || (is_same_move && other.request.disk == request.disk)) continue;
    if (other.request.uri == request.uri) co_return used("another disk of a move is written there");
    const auto other_uri = ImageUri::parse(other.request.uri);
    if (key.empty() || !other_uri) continue;
    const auto other_key = co_await storage_key(context_, *other_uri);
    if (other_key && *other_key == key) co_return used("another disk of a move is written there");
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

Task<Result<TargetDiskFacts>> TargetDisks::look(TargetDiskRequest request) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  const CopyRequest copy = creation(uri, request);
  TargetDiskFacts facts;
  auto state = co_await look_at_target(context_, copy);
  if (!state) {
    facts.problem = state.error().message();
    co_return facts;
  }
  facts.exists = state->exists;
  if (uri.is_file()) {
    const std::filesystem::path folder = std::filesystem::absolute(uri.path()).parent_path();
    std::error_code failed;
    const auto space =
        co_await context_.blocking_pool.run([&] { return std::filesystem::space(folder, failed); });
    if (failed)
      facts.problem = printable(folder.string()) + ": " + failed.message();
    else
      facts.space_available_bytes = space.available;
  }
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
  if (state.exists && disk.was_left) co_return Result<void>{};
  DISKFERRY_CO_TRY(const TargetAction action, decide_target(state, copy));
  if (action == TargetAction::open) co_return Result<void>{};
  disk.record.was_created = disk.record.was_created || action == TargetAction::create;
  co_return co_await create_target(context_, copy, request.size_bytes);
}

Task<Result<std::shared_ptr<BlockDevice>>> TargetDisks::open(TargetDiskRequest request, bool is_again) {
  if (request.through_hypervisor) {
    DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse("nbd+unix:///?socket=/"));
    uri.set_path("/" + request.hypervisor_export);
    uri.set_query("socket", move_socket(options_.move_folder, request.move));
    DeviceInfo promised{.name = uri.to_string(),
                        .block_bytes = hypervisor_block_bytes,
                        .preferred_bytes = 64 * kib,
                        .zero = ZeroSupport::unmapping,
                        .is_read_only = false,
                        .can_discard = true,
                        .can_multi_connection = true};
    co_return checked(make_deferred_device(
        context_.clock,
        {.info = std::move(promised), .size_bytes = request.size_bytes, .open_limit = hypervisor_limit},
        [this, uri] { return open_storage(context_, uri, {.writable = true}); }));
  }
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
  if (request.format != "raw") {
    // Nobody else has it open: the machine is shut off, and the lock of the image says so.
    DISKFERRY_CO_TRY(const Image image,
                     co_await open_image(context_, uri, {.format = request.format, .writable = true}));
    co_return image.shared_device();
  }
  // Once with the lock, so that nobody else has it; then without, for the destination's QEMU opens it, too,
  // and writes nothing before the switchover. A gateway that comes back finds that QEMU, and its lock, there.
  if (!is_again) {
    DISKFERRY_CO_TRY(const DevicePtr locked, co_await open_storage(context_, uri, {.writable = true}));
    DISKFERRY_CO_CHECK(co_await locked->close());
  }
  co_return co_await open_storage(context_, uri, {.writable = true, .without_lock = true});
}

Task<Result<void>> TargetDisks::offer(Disk& disk, std::string client, bool is_again) {
  const TargetDiskRequest& request = disk.record.request;
  DISKFERRY_CO_TRY(std::shared_ptr<BlockDevice> opened, co_await open(request, is_again));
  std::shared_ptr<BlockDevice> device = with_byte_granularity(std::move(opened));
  const auto refuse = [&](Error error) -> Task<Result<void>> {
    (void)co_await device->close();
    co_return unexpected(std::move(error));
  };
  if (device->size_bytes() != request.size_bytes)
    co_return co_await refuse(
        fail(ErrorKind::mismatch, "offer the disk", printable(request.uri))
            .why(fmt::format("it has {} bytes and {} are needed", device->size_bytes(), request.size_bytes))
            .remedy("name a target of that size, or one that can be created"));
  nbd::ExportOptions options{
      .name = export_name(request), .description = "disk " + request.disk + " of a move", .writable = true};
  if (options_.clients_have_names && !client.empty()) options.allow = {client};
  auto offered = nbd::Export::make(std::move(options), device);
  if (!offered) co_return co_await refuse(std::move(offered).error());
  auto added = server_.exports().add(*offered);
  if (!added) co_return co_await refuse(std::move(added).error());
  disk.device = std::move(device);
  disk.offered = *std::move(offered);
  co_return Result<void>{};
}

PreparedDisk TargetDisks::prepared(const Disk& disk) {
  const TargetDiskRequest& request = disk.record.request;
  struct stat found{};
  const auto uri = ImageUri::parse(request.uri);
  const bool is_block_device =
      uri && uri->is_file() && ::stat(uri->path().c_str(), &found) == 0 && S_ISBLK(found.st_mode);
  return {.export_name = export_name(request),
          .was_created = disk.record.was_created,
          .is_taken_up = disk.is_taken_up,
          .is_block_device = is_block_device};
}

Task<Result<PreparedDisk>> TargetDisks::prepare(TargetDiskRequest request, std::string client) {
  DISKFERRY_CO_CHECK(check_move_id(request.move));
  DISKFERRY_CO_TRY(const auto lock, co_await changing_.lock());
  DISKFERRY_CO_CHECK(make_folder(request.move));
  if (request.uri.empty()) co_return PreparedDisk{};
  DISKFERRY_CO_CHECK(check_move_id(request.disk));
  DISKFERRY_CO_CHECK(co_await refuse_what_others_use(request, client));
  const bool was_left = was_left_for(request);
  DISKFERRY_CO_TRY(const bool is_taken_up, co_await is_as_it_was_left(request));
  const bool was_made_for_it = std::ranges::any_of(records(), [&](const TargetDiskRecord& record) {
    return record.was_created && is_left_for(record, request);
  });
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

Task<Result<void>> TargetDisks::withdraw(Disk& disk) {
  if (!disk.offered) co_return Result<void>{};
  disk.device->stop_waiting();
  server_.exports().remove(disk.offered->name());
  auto result = co_await server_.disconnect(disk.offered);
  disk.offered.reset();
  auto closed = co_await disk.device->close();
  disk.device.reset();
  if (!result) co_return result;
  co_return closed;
}

Task<Result<void>> TargetDisks::finish(std::string move, TargetEnd end, std::string client) {
  DISKFERRY_CO_CHECK(check_move_id(move));
  DISKFERRY_CO_TRY(const auto lock, co_await changing_.lock());
  Move* found = nullptr;
  {
    std::lock_guard guard(guard_);
    if (const auto at = moves_.find(move); at != moves_.end()) found = at->second.get();
  }
  Result<void> result;
  const auto note = [&result](Result<void> done) {
    if (!done && result) result = std::move(done);
  };
  if (found != nullptr) {
    for (const auto& [name, disk] : found->disks) {
      if (disk.record.client != client)
        co_return unexpected(fail(ErrorKind::permission, "end the move", move).why("it is another client's"));
    }
    for (auto& [name, disk] : found->disks) {
      note(co_await withdraw(disk));
      if (end == TargetEnd::remove && disk.record.was_created) {
        if (const auto uri = ImageUri::parse(disk.record.request.uri))
          co_await remove_created_target(context_, *uri);
      }
      disk.record.is_left = end == TargetEnd::leave;
      if (const auto uri = ImageUri::parse(disk.record.request.uri); uri && disk.record.is_left) {
        auto identity = co_await storage_identity(context_, *uri);
        disk.record.identity = identity ? *std::move(identity) : std::string();
      }
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(options_.move_folder + "/" + move, ignored);
  if (end == TargetEnd::leave && found != nullptr) {
    note(co_await write_record(move));
    co_return result;
  }
  {
    std::lock_guard guard(guard_);
    moves_.erase(move);
  }
  note(co_await remove_record(move));
  co_return result;
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

Task<void> TargetDisks::stop() {
  auto lock = co_await changing_.lock();
  for (auto& [id, move] : moves_)
    for (auto& [name, disk] : move->disks) (void)co_await withdraw(disk);
}

}  // namespace diskferry
