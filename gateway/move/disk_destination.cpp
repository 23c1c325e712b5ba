// The two destinations; see the header.
#include "gateway/move/disk_destination.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/move/disk_exports.hpp"

#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

bool is_there(const Error& error) noexcept {
  return error.kind() != ErrorKind::not_found;
}

/// The disk of an export that is made by the job, and is there after restarts from its commit on.
class OnExport final : public DiskDestination {
 public:
  explicit OnExport(DiskDestinationParts parts) : parts_(parts) {}

  Task<Result<void>> offer() override {
    if (is_offered_) co_return Result<void>{};
    DISKFERRY_CO_CHECK(co_await parts_.environment.disk_exports->offer_disk(endpoint()));
    is_offered_ = true;
    co_return Result<void>{};
  }

  Task<Result<void>> make_lasting() override {
    return parts_.environment.disk_exports->write_through(state().name, true);
  }

  Task<Result<void>> before_pivot() override { return parts_.disk.wait_for_gateway(); }

  JobChanges commit_record() const override { return {.endpoints = {endpoint()}}; }

  Task<void> settle_in() override {
    const auto waits = co_await persist(
        parts_.environment.drivers.clock, hypervisor_patience,
        [this] { return parts_.disk.wait_for_gateway(); }, is_there);
    if (!waits)
      parts_.record.state().warnings.push_back("the guest sees an error while the gateway is away: " +
                                               waits.error().message());
  }

  Task<Result<void>> withdraw() override {
    if (!is_offered_) co_return Result<void>{};
    is_offered_ = false;
    co_return co_await parts_.environment.disk_exports->withdraw_disk(state().name);
  }

 private:
  const ReplaceDiskState& state() const { return parts_.record.state().disks.front(); }
  EndpointRecord endpoint() const {
    return {
        .name = state().name, .uri = state().uri, .format = state().format, .size_bytes = state().size_bytes};
  }

  DiskDestinationParts parts_;
  bool is_offered_ = false;
};

/// Storage that this gateway has made, closed, and does not touch any more: QEMU has it from the copy on. The
/// export that the disk was on goes with the commit, so that nobody opens the old storage for writing again.
class OpenedByQemu final : public DiskDestination {
 public:
  explicit OpenedByQemu(DiskDestinationParts parts) : parts_(parts) {}

  Task<Result<void>> offer() override { co_return Result<void>{}; }

  /// QEMU outlives this process, and what it was told is between it and the storage.
  Task<Result<void>> make_lasting() override {
    const auto now = co_await parts_.disk.look(false);
    if (now && now->place != DiskPlace::target) state().source_node = now->disk.node_index;
    co_return Result<void>{};
  }

  Task<Result<void>> before_pivot() override { co_return Result<void>{}; }

  JobChanges commit_record() const override {
    return state().ends_export ? JobChanges{.gone_endpoints = {state().name}} : JobChanges{};
  }

  Task<void> settle_in() override {
    if (!state().ends_export) {
      note_old_storage();
      co_return;
    }
    // It would stay open in QEMU, and ask for the export whenever it liked.
    if (state().source_node != 0) co_await parts_.disk.forget_connection(state().source_node);
    const auto withdrawn = co_await parts_.environment.disk_exports->withdraw_disk(state().name);
    if (!withdrawn && withdrawn.error().kind() != ErrorKind::not_found)
      spdlog::warn("export {} is gone: {}", printable(state().name), withdrawn.error().message());
    if (!parts_.record.request().remove_source) {
      note_old_storage();
      co_return;
    }
    if (const auto removed = co_await remove_old_storage(); !removed)
      leftovers().push_back(shown_name(state().source) + ": " + removed.error().message());
  }

  Task<Result<void>> withdraw() override { co_return Result<void>{}; }

 private:
  ReplaceDiskState& state() const { return parts_.record.state().disks.front(); }
  std::vector<std::string>& leftovers() const { return parts_.record.state().leftovers; }

  void note_old_storage() const {
    leftovers().push_back(
        fmt::format("the old storage of {}: {}", printable(state().name), shown_name(state().source)));
  }
  Task<Result<void>> remove_old_storage() const {
    DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse(state().source));
    co_return co_await remove_created_target(parts_.environment.drivers, std::move(uri));
  }

  DiskDestinationParts parts_;
};

}  // namespace

std::unique_ptr<DiskDestination> make_destination(DiskDestinationParts parts) {
  if (parts.record.request().rehome) return std::make_unique<OpenedByQemu>(parts);
  return std::make_unique<OnExport>(parts);
}

}  // namespace diskferry
