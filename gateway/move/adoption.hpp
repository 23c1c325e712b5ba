// A running machine's disk goes elsewhere by the hypervisor's own copy: onto the gateway, to an export that
// is made for it and whose storage is the target; or to storage that QEMU opens itself, off the gateway where
// it was on it (disk_destination.hpp). Until it has gone over the disk is where it was, whatever happens;
// which of the two it is decides libvirt's answer and nothing else.
#pragma once

#include "gateway/move/adoption_rules.hpp"
#include "gateway/move/disk_destination.hpp"
#include "gateway/move/domain_disk.hpp"
#include "gateway/move/replace_job.hpp"
#include "gateway/move/replace_record.hpp"
#include "gateway/move/replacement.hpp"

#include <atomic>
#include <memory>
#include <optional>
#include <string>

namespace diskferry {

/// Thread: one reactor, but where said. Lifetime: of the environment.
class Adoption final : public ReplaceJob {
 public:
  Adoption(ReplaceEnvironment& environment, JobRecord job);
  ~Adoption() override;
  Adoption(const Adoption&) = delete;
  Adoption& operator=(const Adoption&) = delete;

  Task<Result<void>> take_up() override;
  Task<void> leave_to_next() override;
  /// Cancel: before the disk has gone over it is undone.
  Task<Result<void>> run() override;

  Result<void> accepts(Wish wish) const override;
  void commit_now() override { is_commit_wanted_ = true; }
  void fall_back() override {}
  void pause() override {}
  void resume() override {}
  Result<void> set(const ReplaceSettings& settings) override;
  void gateway_stops() noexcept override { is_gateway_stopping_ = true; }
  void cancel() noexcept override { is_cancel_wanted_ = true; }

 private:
  // adoption.cpp: the steps
  Task<Result<void>> load();
  Task<Result<void>> forward();
  Task<Result<void>> prepare();
  Task<Result<void>> look_and_note();
  Task<Result<void>> make_target();
  Task<Result<void>> bring_over();
  Task<Result<void>> commit();
  Task<Result<DiskPlace>> end_copying();
  Task<Result<void>> undo(Error why);
  Task<Result<void>> remove_target();
  ReplaceDiskState& disk_state() { return record_.state().disks.front(); }
  std::uint64_t part_bytes();

  // adoption_copy.cpp: what libvirt and QEMU are had do
  Task<Result<DiskPlace>> settle();
  Task<Result<void>> copy_until_ready();
  Task<Result<void>> note_bound(std::uint64_t bytes_per_s);
  Task<Result<void>> note_view(const DomainDiskView& view);
  Task<Result<bool>> go_over();
  Task<Result<void>> go_over_into(Result<bool>& result);
  Task<Result<bool>> go_over_to_the_end();
  bool is_end_wanted() const noexcept { return is_cancel_wanted_ || is_gateway_stopping_; }

  // adoption_progress.cpp
  std::string progress() const;
  void tell_progress();

  ReplaceEnvironment& environment_;
  ReplaceRecord record_;
  std::optional<DomainDisk> disk_{};
  std::unique_ptr<DiskDestination> destination_{};
  bool is_taken_up_ = false;
  bool can_remove_unseen_ = true;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t bounded_to_ = 0;  // bytes a second that libvirt was told

  std::atomic<bool> is_commit_wanted_ = false;
  std::atomic<bool> is_cancel_wanted_ = false;
  std::atomic<bool> is_gateway_stopping_ = false;
  std::atomic<std::uint64_t> bytes_per_s_ = 0;
};

}  // namespace diskferry
