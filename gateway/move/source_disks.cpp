// Opening in order, closing in the opposite one.
#include "gateway/move/source_disks.hpp"

#include "diskferry/task_group.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/registry.hpp"
#include "gateway/mirror/table_file.hpp"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace nbd = nbd_server;

struct SourceDisks::Disk {
  SourceDisk wanted;
  Window* window = nullptr;  // owned by `device`
  std::shared_ptr<BlockDevice> device{};
  nbd::ExportPtr offered{};
  std::atomic<bool> was_verified = false;  // or is being
  std::atomic<std::uint64_t> verified_bytes = 0;
};

namespace {

/// A window alone in its memory, however many disks there are: one request of QEMU's fits.
constexpr std::uint64_t window_bytes_min = 2u << 20;
/// How long a target may take, at the end of an attempt that failed, to make durable what it has.
constexpr Duration last_flush_limit = std::chrono::seconds(10);

void log(nbd::ServerOptions::Severity severity, const std::string& text) {
  using enum nbd::ServerOptions::Severity;
  if (severity == error)
    spdlog::error("move: {}", text);
  else if (severity == warn)
    spdlog::warn("move: {}", text);
  else
    spdlog::debug("move: {}", text);
}

/// Only the hypervisor's user gets in: what is written here becomes the guest's disk.
Result<void> give_away(const std::string& path, std::int64_t uid, std::int64_t gid, mode_t mode) {
  if (::chmod(path.c_str(), mode) != 0) return unexpected(errno_error(errno, "protect", path));
  if (uid < 0 || ::geteuid() != 0) return {};
  if (::lchown(path.c_str(), static_cast<uid_t>(uid), static_cast<gid_t>(gid)) != 0)
    return unexpected(errno_error(errno, "give to the hypervisor's user", path));
  return {};
}

}  // namespace

SourceDisks::SourceDisks(DriverContext& context, SourceDisksOptions options)
    : context_(context), options_(std::move(options)) {}
SourceDisks::~SourceDisks() {
  DISKFERRY_ASSERT(disks_.empty() && !is_listening_, "a move's source disks are destroyed before stop()");
}

Task<Result<void>> SourceDisks::open(SourceDisk wanted) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(wanted.target_uri));
  // The hypervisor that takes over has network storage open, too, and writes to it from the switchover on.
  auto opened = co_await open_storage(
      context_, uri, {.writable = true, .without_lock = true, .connections = wanted.connections});
  if (!opened) co_return unexpected(std::move(opened).error().in("open the target of " + wanted.target));
  const std::shared_ptr<BlockDevice> storage = *std::move(opened);
  auto sliced = slice_of(storage, {0, wanted.size_bytes});
  if (!sliced) {
    (void)co_await storage->close();
    co_return unexpected(std::move(sliced).error().in("open the target of " + wanted.target));
  }
  std::shared_ptr<BlockDevice> target = *std::move(sliced);
  auto disk = std::make_unique<Disk>();
  WindowOptions options{.window_bytes = options_.window_bytes,
                        .starts_zeroed = wanted.starts_zeroed,
                        .before_flush_returns = [this, &of = *disk] { return flushed(of); }};
  if (wanted.is_taken_up && !wanted.table_path.empty()) {
    auto table = co_await load_block_table(
        context_, wanted.table_path,
        {.target_identity = wanted.target_identity,
         .shape = {.size_bytes = target->size_bytes(),
                   .block_bytes = std::max(options.block_bytes, target->info().block_bytes),
                   .bytes_max = options.table_bytes_max}});
    if (table)
      options.table = *std::move(table);
    else
      spdlog::info("move: what the target of {} holds is not known: {}", wanted.target,
                   table.error().message());
  }
  auto window = std::make_unique<Window>(context_, std::move(target), std::move(options));
  disk->window = window.get();
  disk->device = with_byte_granularity(checked(std::move(window)));
  disk->wanted = std::move(wanted);
  disks_.push_back(std::move(disk));
  Disk& added = *disks_.back();
  DISKFERRY_CO_TRY(added.offered, nbd::Export::make({.name = added.wanted.export_name,
                                                     .description = "mirror of " + added.wanted.target,
                                                     .writable = true},
                                                    added.device));
  co_return server_->exports().add(added.offered);
}

Task<Result<void>> SourceDisks::flushed(Disk& disk) {
  if (options_.verify && !disk.was_verified.exchange(true)) {
    if (options_.drop_caches) {
      if (auto dropped = co_await options_.drop_caches(); !dropped)
        spdlog::warn("move: {} is verified as its caches have it: {}", disk.wanted.target,
                     dropped.error().message());
    }
    DISKFERRY_CO_CHECK(co_await disk.window->verify(disk.verified_bytes));
    spdlog::info("move: {}: {} bytes read back and found right", disk.wanted.target,
                 disk.verified_bytes.load());
  }
  if (options_.flushed) co_return co_await options_.flushed();
  co_return Result<void>{};
}

Task<Result<void>> SourceDisks::listen() {
  const std::string folder = std::filesystem::path(options_.socket).parent_path().string();
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) co_return unexpected(errno_error(failed.value(), "make the folder", folder));
  DISKFERRY_CO_CHECK(give_away(folder, options_.hypervisor_uid, options_.hypervisor_gid, 0700));
  DISKFERRY_CO_CHECK(co_await server_->start());
  is_listening_ = true;
  co_return give_away(options_.socket, options_.hypervisor_uid, options_.hypervisor_gid, 0600);
}

Task<Result<void>> SourceDisks::start(std::vector<SourceDisk> disks) {
  nbd::ServerOptions options{.log = log};
  options.listen.push_back({.kind = nbd::ListenAddress::Kind::unix_socket, .path = options_.socket});
  server_ = std::make_unique<nbd::Server>(context_, std::move(options));
  Result<void> result;
  for (SourceDisk& disk : disks) {
    result = co_await open(std::move(disk));
    if (!result) break;
  }
  if (result) result = co_await listen();
  if (result) {
    set_window_bytes(options_.window_bytes);
    set_bytes_per_s(options_.bytes_per_s);
    co_return result;
  }
  (void)co_await stop(false);
  co_return result;
}

Task<Result<void>> SourceDisks::make_all_durable() {
  // Side by side: the pause is as long as the slowest disk, not as all of them.
  TaskGroup group(co_await boost::asio::this_coro::executor);
  for (const auto& disk : disks_) group.spawn(disk->window->make_durable());
  co_return co_await group.join();
}

void SourceDisks::set_window_bytes(std::uint64_t all_disks) {
  if (disks_.empty()) return;
  for (const auto& disk : disks_)
    disk->window->set_window_bytes(std::max(window_bytes_min, all_disks / disks_.size()));
}

void SourceDisks::set_bytes_per_s(std::uint64_t all_disks) {
  for (const auto& disk : disks_)
    disk->window->set_bytes_per_s(all_disks == 0 ? 0 : std::max<std::uint64_t>(1, all_disks / disks_.size()));
}

std::vector<SourceDisks::DiskStats> SourceDisks::stats() const {
  std::vector<DiskStats> all;
  for (const auto& disk : disks_)
    all.push_back({.target = disk->wanted.target,
                   .size_bytes = disk->wanted.size_bytes,
                   .window = disk->window->stats(),
                   .verified_bytes = disk->verified_bytes});
  return all;
}

std::uint64_t SourceDisks::sent_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& disk : disks_) {
    const WindowStats stats = disk->window->stats();
    sum += stats.sent_bytes + stats.sent_zero_bytes;
  }
  return sum;
}

bool SourceDisks::are_copied_once() const {
  return std::ranges::all_of(disks_, [](const auto& disk) {
    const WindowStats stats = disk->window->stats();
    return stats.acknowledged_bytes + stats.zeroed_bytes >= disk->wanted.size_bytes;
  });
}

bool SourceDisks::have_begun() const {
  return std::ranges::all_of(disks_, [](const auto& disk) {
    const WindowStats stats = disk->window->stats();
    return stats.acknowledged_bytes + stats.zeroed_bytes > 0;
  });
}

std::optional<Error> SourceDisks::failure() const {
  for (const auto& disk : disks_) {
    if (auto failed = disk->window->failure())
      return failed->with_step("write to the target of " + disk->wanted.target);
  }
  return std::nullopt;
}

Task<Result<void>> SourceDisks::stop(bool keep_tables) {
  Result<void> result;
  const auto note = [&result](Result<void> done) {
    if (!done && result) result = std::move(done);
  };
  // The targets first, so that what waits in a window ends with an error and the server can close.
  for (const auto& disk : disks_) {
    disk->device->stop_waiting();
    note(co_await disk->window->stop());
    if (keep_tables && !disk->wanted.table_path.empty()) {
      if (auto flushed = co_await with_deadline(context_.clock, last_flush_limit, "flush the target",
                                                disk->window->flush_sent());
          !flushed)
        spdlog::debug("move: of {} only what was flushed before is kept: {}", disk->wanted.target,
                      flushed.error().message());
      std::error_code ignored;
      std::filesystem::create_directories(std::filesystem::path(disk->wanted.table_path).parent_path(),
                                          ignored);
      note(co_await disk->window->save_table(disk->wanted.table_path, disk->wanted.target_identity));
    }
  }
  // Flushes fail on windows that are stopped: that says nothing.
  if (is_listening_) (void)co_await server_->stop();
  is_listening_ = false;
  server_.reset();
  for (const auto& disk : disks_) note(co_await disk->device->close());
  disks_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(std::filesystem::path(options_.socket).parent_path(), ignored);
  co_return result;
}

}  // namespace diskferry
