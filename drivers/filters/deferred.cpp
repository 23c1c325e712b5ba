// Each verb waits for the opening and passes on; once it is open that is one load of an atomic pointer.
#include "drivers/filters/deferred.hpp"

#include "diskferry/sync.hpp"

#include <atomic>
#include <fmt/format.h>
#include <optional>

namespace diskferry {
namespace {

bool may_come_yet(ErrorKind kind) {
  return kind == ErrorKind::not_found || kind == ErrorKind::gone || kind == ErrorKind::io ||
         kind == ErrorKind::permission || kind == ErrorKind::timed_out;
}

class DeferredDevice final : public BlockDevice {
 public:
  DeferredDevice(Clock& clock, DeferredOptions options, DeferredOpen open)
      : clock_(clock), options_(std::move(options)), open_(std::move(open)) {}

  const DeviceInfo& info() const noexcept override { return options_.info; }
  std::uint64_t size_bytes() const noexcept override { return options_.size_bytes; }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->write(offset, from, flags);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->write_zeroes(range, flags);
  }
  Task<Result<void>> discard(Range range) override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->discard(range);
  }
  Task<Result<void>> flush() override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->flush();
  }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    DISKFERRY_CO_TRY(BlockDevice * inner, co_await opened());
    co_return co_await inner->extents(range, extents_max);
  }
  Task<Result<void>> close() override {
    if (!inner_) co_return Result<void>{};
    co_return co_await inner_->close();
  }
  std::uint64_t repeated_requests() const noexcept override {
    const BlockDevice* inner = ready_.load();
    return inner == nullptr ? 0 : inner->repeated_requests();
  }
  void stop_waiting() noexcept override {
    is_ending_ = true;
    if (BlockDevice* inner = ready_.load(); inner != nullptr) inner->stop_waiting();
  }

 private:
  Task<Result<BlockDevice*>> opened() {
    if (BlockDevice* inner = ready_.load(); inner != nullptr) co_return inner;
    DISKFERRY_CO_TRY(const auto lock, co_await opening_.lock());
    if (BlockDevice* inner = ready_.load(); inner != nullptr) co_return inner;
    if (final_error_) co_return unexpected(*final_error_);
    auto inner = co_await try_until_it_opens();
    if (!inner) {
      // Who was cancelled has tried for itself only.
      if (inner.error().kind() != ErrorKind::cancelled) final_error_ = inner.error();
      co_return unexpected(std::move(inner).error());
    }
    inner_ = *std::move(inner);
    ready_ = inner_.get();
    // Whoever told us so while it was being opened did not reach it.
    if (is_ending_) inner_->stop_waiting();
    co_return inner_.get();
  }

  Task<Result<DevicePtr>> try_until_it_opens() {
    const TimePoint end = Clock::after(clock_.now(), options_.open_limit);
    while (true) {
      auto inner = co_await open_();
      if (inner) {
        auto fits = check(**inner);
        if (fits) co_return inner;
        (void)co_await (*inner)->close();
        co_return unexpected(std::move(fits).error());
      }
      if (!may_come_yet(inner.error().kind()) || is_ending_ || clock_.now() >= end) co_return inner;
      DISKFERRY_CO_CHECK(co_await clock_.sleep_for(options_.open_pause));
    }
  }

  Result<void> check(const BlockDevice& inner) const {
    const auto differs = [&](std::string why) {
      return unexpected(fail(ErrorKind::mismatch, "open", options_.info.name).why(std::move(why)));
    };
    if (inner.size_bytes() != options_.size_bytes)
      return differs(
          fmt::format("it has {} bytes where {} were promised", inner.size_bytes(), options_.size_bytes));
    if (inner.info().block_bytes > options_.info.block_bytes)
      return differs(fmt::format("its blocks have {} bytes", inner.info().block_bytes));
    if (inner.info().is_read_only && !options_.info.is_read_only) return differs("it is read-only");
    return {};
  }

  Clock& clock_;
  const DeferredOptions options_;
  const DeferredOpen open_;
  AsyncMutex opening_;
  std::optional<Error> final_error_{};
  DevicePtr inner_{};
  std::atomic<BlockDevice*> ready_ = nullptr;
  std::atomic<bool> is_ending_ = false;
};

}  // namespace

DevicePtr make_deferred_device(Clock& clock, DeferredOptions options, DeferredOpen open) {
  return std::make_unique<DeferredDevice>(clock, std::move(options), std::move(open));
}

}  // namespace diskferry
