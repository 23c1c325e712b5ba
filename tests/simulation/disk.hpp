// A disk of the simulated world: requests are done one by one in the order that the schedule chooses, what is
// not flushed may be lost in a power cut, and it hangs, fails or goes away when it is told to.
#pragma once

#include "diskferry/units.hpp"
#include "tests/simulation/world.hpp"
#include "tests/support/sector_model.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace diskferry::sim {

/// What outlives whoever uses the disk.
struct Platter {
  std::vector<std::byte> current;
  std::vector<std::byte> durable;
  bool is_hung = false;
  bool is_gone = false;
  unsigned openings = 0;       ///< who opened it before the last of them has nothing any more
  unsigned fail_one_in = 0;    ///< 0: no request fails
  unsigned inline_one_in = 3;  ///< so many of the requests that may be are served without waiting

  Platter(std::uint64_t size_bytes, std::uint64_t content) : current(size_bytes) {
    test::fill_sectors(current, content, 0);
    durable = current;
  }
  /// Of each sector that was not flushed either what was there or what was written.
  void cut_power(World& world) {
    for (std::uint64_t at = 0; at < current.size(); at += test::sector_bytes) {
      const std::size_t length = std::min<std::size_t>(test::sector_bytes, current.size() - at);
      if (world.one_in(2)) std::memcpy(current.data() + at, durable.data() + at, length);
    }
    durable = current;
  }
};

class Disk : public BlockDevice {
 public:
  Disk(World& world, Platter& platter, std::string name, DeviceInfo info)
      : world_(world), platter_(platter), info_(std::move(info)), opening_(platter.openings) {
    info_.name = std::move(name);
    info_.is_read_only = false;
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return platter_.current.size(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    DISKFERRY_CO_CHECK(co_await arrive("read", {offset, into.size()}));
    std::memcpy(into.data(), platter_.current.data() + offset, into.size());
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const bool is_sent = !is_gone();
    auto done = co_await arrive("write", {offset, from.size()});
    if (is_sent) put(offset, done ? from : torn(from));
    if (flags.fua && done)
      std::memcpy(platter_.durable.data() + offset, platter_.current.data() + offset, from.size());
    co_return done;
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags) override {
    auto done = co_await arrive("zero", range);
    if (done) std::memset(platter_.current.data() + range.offset, 0, range.length);
    co_return done;
  }
  Task<Result<void>> discard(Range range) override {
    auto done = co_await arrive("discard", range);
    if (done && world_.one_in(2)) std::memset(platter_.current.data() + range.offset, 0, range.length);
    co_return done;
  }
  Task<Result<void>> flush() override {
    DISKFERRY_CO_CHECK(co_await arrive("flush", {}));
    platter_.durable = platter_.current;
    co_return Result<void>{};
  }
  /// Zeros where there are zeros, in random pieces.
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    DISKFERRY_CO_CHECK(co_await arrive("extents", range));
    std::vector<Extent> found;
    for (std::uint64_t at = range.offset; at < range.end() && found.size() < extents_max;) {
      const std::uint64_t length = std::min(range.end() - at, (1 + world_.random(16)) * 4096);
      const std::span<const std::byte> bytes(platter_.current.data() + at, length);
      const bool is_zero = std::ranges::all_of(bytes, [](std::byte one) { return one == std::byte{0}; });
      found.push_back({.offset = at, .length = length, .reads_zero = is_zero, .is_hole = is_zero});
      at += length;
    }
    co_return found;
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override {
    if (!is_inline()) return std::nullopt;
    std::memcpy(into.data(), platter_.current.data() + offset, into.size());
    return Result<void>{};
  }
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override {
    if (!is_inline()) return std::nullopt;
    put(offset, from);
    trace("write", {offset, from.size()}, "at once");
    return Result<void>{};
  }

 private:
  bool is_gone() const { return platter_.is_gone || opening_ != platter_.openings; }
  bool is_inline() {
    return !platter_.is_hung && !is_gone() && platter_.fail_one_in == 0 && platter_.inline_one_in != 0 &&
           world_.one_in(platter_.inline_one_in);
  }
  void put(std::uint64_t offset, std::span<const std::byte> from) {
    std::memcpy(platter_.current.data() + offset, from.data(), from.size());
  }
  /// What a write that failed has written all the same.
  std::span<const std::byte> torn(std::span<const std::byte> from) {
    return from.first(std::min<std::size_t>(
        from.size(), world_.random(from.size() / test::sector_bytes + 1) * test::sector_bytes));
  }
  Task<Result<void>> arrive(const char* verb, Range range) {
    trace(verb, range, "...");
    auto arrived = co_await take_turn(verb);
    trace(verb, range, arrived ? "done" : arrived.error().message());
    co_return arrived;
  }
  void trace(const char* verb, Range range, const std::string& what) {
    world_.trace(fmt::format("{} {} {}+{} {}", info_.name, verb, range.offset / test::sector_bytes,
                             range.length / test::sector_bytes, what));
  }
  Task<Result<void>> take_turn(const char* verb) {
    const bool is_turn = co_await world_.turn([this] { return !platter_.is_hung || is_gone(); });
    if (!is_turn) co_return unexpected(cancelled_error(verb, info_.name));
    if (is_gone()) co_return unexpected(fail(ErrorKind::gone, verb, info_.name));
    if (platter_.fail_one_in != 0 && world_.one_in(platter_.fail_one_in))
      co_return unexpected(fail(ErrorKind::io, verb, info_.name));
    co_return Result<void>{};
  }

  World& world_;
  Platter& platter_;
  DeviceInfo info_;
  const unsigned opening_;
};

}  // namespace diskferry::sim
