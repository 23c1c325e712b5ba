// A disk with a volatile cache: what was written is read back at once, and is durable only when a flush that
// began after it has succeeded. After a power cut, `durable()` is what is there.
#pragma once

#include "diskferry/block_device.hpp"
#include "diskferry/units.hpp"

#include <cstring>
#include <mutex>
#include <vector>

namespace diskferry::test {

class VolatileDisk final : public BlockDevice {
 public:
  VolatileDisk(std::uint64_t size_bytes, std::uint32_t block_bytes, ZeroSupport zero, bool starts_zeroed)
      : current_(size_bytes, starts_zeroed ? std::byte{0} : std::byte{0xEE}), durable_(current_) {
    info_.name = "volatile";
    info_.block_bytes = block_bytes;
    info_.is_read_only = false;
    info_.zero = zero;
    info_.can_discard = true;
    info_.starts_zeroed = starts_zeroed;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return current_.size(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    std::lock_guard lock(guard_);
    std::memcpy(into.data(), current_.data() + offset, into.size());
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    std::lock_guard lock(guard_);
    std::memcpy(current_.data() + offset, from.data(), from.size());
    written_bytes_ += from.size();
    if (flags.in_background) background_bytes_ += from.size();
    writes_.push_back({offset, from.size()});
    co_return Result<void>{};
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags) override {
    std::lock_guard lock(guard_);
    std::memset(current_.data() + range.offset, 0, range.length);
    zeroings_.push_back(range);
    co_return Result<void>{};
  }
  Task<Result<void>> discard(Range range) override {
    std::lock_guard lock(guard_);
    std::memset(current_.data() + range.offset, 0xDD, range.length);
    co_return Result<void>{};
  }
  Task<Result<void>> flush() override {
    std::lock_guard lock(guard_);
    durable_ = current_;
    ++flushes_;
    co_return Result<void>{};
  }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }

  std::vector<std::byte> durable() const {
    std::lock_guard lock(guard_);
    return durable_;
  }
  std::vector<std::byte> current() const {
    std::lock_guard lock(guard_);
    return current_;
  }
  unsigned flushes() const {
    std::lock_guard lock(guard_);
    return flushes_;
  }
  std::uint64_t written_bytes() const {
    std::lock_guard lock(guard_);
    return written_bytes_;
  }
  std::uint64_t background_bytes() const {  // of those written
    std::lock_guard lock(guard_);
    return background_bytes_;
  }
  std::vector<Range> writes() const {
    std::lock_guard lock(guard_);
    return writes_;
  }
  std::vector<Range> zeroings() const {
    std::lock_guard lock(guard_);
    return zeroings_;
  }

 private:
  DeviceInfo info_;
  mutable std::mutex guard_;
  std::vector<std::byte> current_;
  std::vector<std::byte> durable_;
  unsigned flushes_ = 0;
  std::uint64_t written_bytes_ = 0;
  std::uint64_t background_bytes_ = 0;
  std::vector<Range> writes_;
  std::vector<Range> zeroings_;
};

}  // namespace diskferry::test
