// A storage in memory that remembers every change it was asked for, in order, with the flushes between them:
// what was on the disk when the power went can be rebuilt for any moment, and with any of the changes that no
// flush covers missing, torn or out of order.
#pragma once

#include "diskferry/driver.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <vector>

namespace diskferry::test {

struct Change {
  bool is_flush = false;
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes{};
};

inline void apply(std::vector<std::byte>& content, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  std::memcpy(content.data() + offset, bytes.data(), bytes.size());
}

/// `since`: changes after the last flush. Some are lost, some torn by sectors, and they come in any order.
inline std::vector<std::byte> after_power_cut(std::vector<std::byte> content, std::span<const Change> since,
                                              std::mt19937_64& random) {
  std::vector<const Change*> order;
  for (const Change& one : since) order.push_back(&one);
  std::ranges::shuffle(order, random);
  for (const Change* one : order) {
    const auto fate = random() % 4;
    if (fate == 0) continue;
    if (fate == 1) {
      for (std::size_t at = 0; at < one->bytes.size(); at += 512) {
        if (random() % 2 == 0) continue;
        apply(content, one->offset + at,
              std::span(one->bytes).subspan(at, std::min<std::size_t>(512, one->bytes.size() - at)));
      }
      continue;
    }
    apply(content, one->offset, one->bytes);
  }
  return content;
}

class RecordingDevice final : public BlockDevice {
 public:
  explicit RecordingDevice(std::vector<std::byte> content = {}, bool can_grow = true)
      : content_(std::move(content)) {
    info_.name = "recording";
    info_.is_read_only = false;
    info_.can_grow = can_grow;
    info_.can_discard = true;
    info_.zero = ZeroSupport::unmapping;
  }
  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override {
    std::lock_guard lock(guard_);
    return content_.size();
  }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    std::lock_guard lock(guard_);
    ++reads;
    std::memcpy(into.data(), content_.data() + offset, into.size());
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    if (offset + from.size() > limit_bytes)
      co_return unexpected(fail(ErrorKind::no_space, "write", info_.name).at(offset, from.size()));
    record(offset, {from.begin(), from.end()});
    if (flags.in_background) background_bytes += from.size();
    co_return Result<void>{};
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags) override {
    record(range.offset, std::vector<std::byte>(range.length));
    co_return Result<void>{};
  }
  Task<Result<void>> discard(Range range) override {
    // What a discard leaves is undefined: rubbish shows who still needs it.
    record(range.offset, std::vector<std::byte>(range.length, std::byte{0xdd}));
    co_return Result<void>{};
  }
  Task<Result<void>> flush() override {
    std::lock_guard lock(guard_);
    changes_.push_back({.is_flush = true});
    co_return Result<void>{};
  }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }

  /// Writes beyond fail, as on a full file system.
  std::atomic<std::uint64_t> limit_bytes = UINT64_MAX;
  std::atomic<std::uint64_t> reads = 0;
  std::atomic<std::uint64_t> background_bytes = 0;  // of those written

  std::size_t change_count() const {
    std::lock_guard lock(guard_);
    return changes_.size();
  }
  /// After everything has ended.
  const std::vector<Change>& changes() const { return changes_; }
  const std::vector<std::byte>& content() const { return content_; }

 private:
  void record(std::uint64_t offset, std::vector<std::byte> bytes) {
    std::lock_guard lock(guard_);
    apply(content_, offset, bytes);
    changes_.push_back({.offset = offset, .bytes = std::move(bytes)});
  }
  DeviceInfo info_;
  mutable std::mutex guard_;
  std::vector<std::byte> content_;
  std::vector<Change> changes_;
};

}  // namespace diskferry::test
