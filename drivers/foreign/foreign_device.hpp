// The device over qemu-nbd: an NBD device that knows its children. It says why a child ended instead of that
// a connection was lost, and asks a server on the network again where qemu-nbd passes on a failure.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"
#include "diskferry/sync.hpp"
#include "drivers/foreign/qemu_nbd.hpp"

#include <atomic>
#include <memory>
#include <vector>

namespace diskferry::foreign {

struct ForeignPlan {
  std::string name{};  ///< for messages
  Duration open_limit = std::chrono::seconds(30);
  /// How long a read is repeated that the server did not answer; zero: a file, whose errors are final.
  Duration retry_limit{};
  /// Each repetition wants a new child: by SSH a session that is lost stays lost.
  bool restarts_child = false;
  /// QEMU's curl (7.2) loses track of requests when several are under way: it then waits for ever.
  bool is_one_at_a_time = false;
  Duration stall_limit = std::chrono::seconds(60);
  /// After this a request counts as lost, and a new child is wanted; a local image has all the time it takes.
  Duration answer_limit = Duration::max();
  unsigned connections = 0;
};

class ForeignDevice final : public BlockDevice {
 public:
  /// `children`: the one that is connected to is the last; each reads through the one before.
  ForeignDevice(DriverContext& context, ForeignPlan plan, std::vector<std::unique_ptr<QemuNbd>> children);

  /// Errors: as Driver::open. After one only close() may be called.
  Task<Result<void>> open();

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return nbd_->size_bytes(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override;
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override;
  Task<Result<void>> discard(Range range) override;
  Task<Result<void>> flush() override;
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override;
  Task<Result<void>> close() override;
  std::uint64_t repeated_requests() const noexcept override;
  void stop_waiting() noexcept override;

  /// The child that reads the image. Precondition: open.
  const QemuNbd& child() const noexcept { return *children_.back(); }

 private:
  /// One verb of the NBD device, as often as it takes.
  template <class T, class Once>
  Task<Result<T>> persistently(Once once);
  /// In its turn, and for a server within the time that it has.
  template <class T, class Once>
  Task<Result<T>> attempt(const Once& once);
  /// Waits where the request should be sent again; else the error to return.
  Task<Result<void>> try_again(Error error, unsigned attempts);
  void note_success() noexcept;
  /// Since when no request has succeeded.
  TimePoint away_since() noexcept;
  Error explained(Error error) const;
  std::optional<Error> death() const;
  Error read_only(std::string operation) const;

  DriverContext& context_;
  const ForeignPlan plan_;
  std::vector<std::unique_ptr<QemuNbd>> children_;
  DevicePtr nbd_;
  DeviceInfo info_;
  AsyncMutex turn_;
  std::atomic<bool> is_ending_ = false;
  std::atomic<Duration::rep> away_since_ns_ = 0;  // 0: the server answers
  std::atomic<std::uint64_t> repeated_ = 0;
  std::atomic<std::uint64_t> given_up_ = 0;  // how often; those that waited for their turn meanwhile share it
};

}  // namespace diskferry::foreign
