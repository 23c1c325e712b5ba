// Storage: one file on a volume, kept open. It opens the file again when its brick was away, sends again what
// was not answered, and knows which changes were not made durable before.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/gluster/file.hpp"
#include "drivers/gluster/mounts.hpp"
#include "drivers/support/unflushed.hpp"

namespace diskferry::gluster {

/// Thread: the verbs from any, many at once; open() and close() once.
class Storage {
 public:
  Storage(DriverContext& context, Endpoint endpoint, Purpose purpose);

  /// Errors: as Driver::open.
  Task<Result<void>> open();
  Task<void> close();

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into);
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from);
  Task<Result<void>> zero(Range range, ZeroFlags flags);
  Task<Result<void>> discard(Range range);
  Task<Result<void>> flush();
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max);

  const Endpoint& endpoint() const noexcept { return endpoint_; }
  /// When it was opened.
  const FileFacts& facts() const noexcept { return facts_; }
  std::uint64_t size_bytes() const noexcept { return size_bytes_.load(std::memory_order_acquire); }
  std::uint64_t repeated_requests() const noexcept { return repeated_.load(std::memory_order_relaxed); }
  void stop_waiting() noexcept { is_ending_.store(true, std::memory_order_relaxed); }

 private:
  struct Done {
    std::size_t bytes = 0;
    std::uint64_t generation = 0;
  };
  /// Until it is answered with yes, or no for good.
  Task<Result<Done>> perform(Call call);
  Task<Result<void>> change(Call call);
  Task<Result<void>> wait_for_abandoned(const Call& call);
  /// The file, opened again where it has to be, until then at the latest.
  Task<Result<OpenFilePtr>> file(TimePoint until);
  Task<Result<OpenFilePtr>> reopen(TimePoint until);
  Result<void> check_same(const FileFacts& now) const;
  /// It is of no use any more.
  void retire(const OpenFilePtr& file);
  Result<OpenFilePtr> current();
  Error declare_gone(Error error);
  TimePoint give_up_time() const;
  void grown_to(std::uint64_t end) noexcept;

  /// False: it has to be zeroed in another way, which trying has shown in `can`; nothing was promised.
  Task<Result<bool>> change_in_steps(Verb verb, std::uint64_t step_bytes, std::atomic<bool>& can,
                                     Range range);
  Task<Result<bool>> punch(Range range);
  Task<Result<bool>> fill(Range range);
  Task<Result<void>> write_zeros(Range range);
  Task<Result<bool>> reads_zero(Range range);

  DriverContext& context_;
  const Endpoint endpoint_;
  const Purpose purpose_;
  FileFacts facts_{};
  VolumePtr volume_{};
  AsyncMutex opening_{};
  AsyncMutex flushing_{};
  Unflushed unflushed_{};
  const Abandoned abandoned_ = std::make_shared<std::atomic<unsigned>>(0);
  std::atomic<std::uint64_t> size_bytes_ = 0;
  std::atomic<std::uint64_t> repeated_ = 0;
  std::atomic<bool> is_ending_ = false;
  // What trying has shown so far.
  std::atomic<bool> punches_ = false;
  std::atomic<bool> has_seen_zeros_ = false;  ///< where it was punched
  std::atomic<bool> fills_ = true;
  std::atomic<bool> seeks_ = false;

  std::mutex guard_;
  OpenFilePtr file_{};            // null: it has to be opened again
  std::uint64_t generation_ = 0;  // of the last opening
  std::optional<Error> gone_{};
};

}  // namespace diskferry::gluster
