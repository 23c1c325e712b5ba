// A disk of the simulated world: requests are done one by one in the order that the schedule chooses, what is
// not flushed may be lost in a power cut, and it hangs, fails or goes away when it is told to.
#pragma once

#include "diskferry/units.hpp"
#include "tests/simulation/link.hpp"
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
  Link link{};
  std::function<void(Range)> on_put{};  ///< called when these bytes have been written

  Platter(std::uint64_t size_bytes, std::uint64_t content) : current(size_bytes) {
    test::fill_sectors(current, content, 0);
    durable = current;
  }
  void put(std::uint64_t offset, std::span<const std::byte> from) {
    std::memcpy(current.data() + offset, from.data(), from.size());
    if (on_put && !from.empty()) on_put({offset, from.size()});
  }
  void zero(Range range) {
    std::memset(current.data() + range.offset, 0, range.length);
    if (on_put) on_put(range);
  }
  void make_durable(Range range) {
    std::memcpy(durable.data() + range.offset, current.data() + range.offset, range.length);
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
    DISKFERRY_CO_CHECK(co_await change("read", {offset, into.size()}, {}));
    std::memcpy(into.data(), platter_.current.data() + offset, into.size());
    co_return Result<void>{};
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override {
    const Range range{offset, from.size()};
    const bool is_sent = !is_gone();
    bool is_lost = false;
    const auto done = co_await arrive("write", range, is_lost, [this, offset, from, flags] {
      return [&platter = platter_, offset, bytes = std::vector(from.begin(), from.end()), flags] {
        platter.put(offset, bytes);
        if (flags.fua) platter.make_durable({offset, bytes.size()});
      };
    });
    if (is_sent && (done || !is_lost)) platter_.put(offset, done ? from : torn(from));
    if (flags.fua && done) platter_.make_durable(range);
    co_return done;
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags) override {
    co_return co_await change("zero", range, [&platter = platter_, range] { platter.zero(range); });
  }
  Task<Result<void>> discard(Range range) override {
    co_return co_await change("discard", range, [&world = world_, &platter = platter_, range] {
      if (world.one_in(2)) platter.zero(range);
    });
  }
  Task<Result<void>> flush() override {
    co_return co_await change("flush", {}, [&platter = platter_] { platter.durable = platter.current; });
  }
  /// Zeros where there are zeros, in random pieces, which may be finer than what is copied at once.
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    DISKFERRY_CO_CHECK(co_await change("extents", range, {}));
    std::vector<Extent> found;
    for (std::uint64_t at = range.offset; at < range.end() && found.size() < extents_max;) {
      const std::uint64_t length = std::min(range.end() - at, (1 + world_.random(128)) * test::sector_bytes);
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
    platter_.put(offset, from);
    trace("write", {offset, from.size()}, "at once");
    return Result<void>{};
  }

 private:
  bool is_gone() const { return platter_.is_gone || opening_ != platter_.openings; }
  bool is_inline() {
    const bool can_be = !platter_.is_hung && !is_gone() && platter_.fail_one_in == 0 &&
                        platter_.inline_one_in != 0 && world_.one_in(platter_.inline_one_in);
    if (can_be) platter_.link.note_request();
    return can_be && !platter_.link.is_cut();
  }
  /// What a write that failed has written all the same.
  std::span<const std::byte> torn(std::span<const std::byte> from) {
    return from.first(std::min<std::size_t>(
        from.size(), world_.random(from.size() / test::sector_bytes + 1) * test::sector_bytes));
  }
  /// May happen when the device is no more.
  using Effect = std::function<void()>;
  /// `effect` is what it does to the storage; empty: nothing.
  Task<Result<void>> change(const char* verb, Range range, Effect effect) {
    bool is_lost = false;
    auto done = co_await arrive(verb, range, is_lost, [&effect] { return effect; });
    if (done && effect) effect();
    co_return done;
  }
  /// Until it is its turn. `kept` gives what it does, for when it is not answered: then `is_lost`.
  Task<Result<void>> arrive(const char* verb, Range range, bool& is_lost, std::function<Effect()> kept) {
    trace(verb, range, "...");
    platter_.link.note_request();
    auto arrived = co_await take_turn(verb);
    while (arrived && platter_.link.is_cut()) {
      is_lost = true;
      trace(verb, range, "lost");
      const auto again =
          co_await platter_.link.lose(verb, info_.name, kept(), true, [this] { return is_gone(); });
      arrived = again ? co_await take_turn(verb) : unexpected(again.error());
    }
    if (arrived && platter_.fail_one_in != 0 && world_.one_in(platter_.fail_one_in))
      arrived = unexpected(fail(ErrorKind::io, verb, info_.name));
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
    co_return Result<void>{};
  }

  World& world_;
  Platter& platter_;
  DeviceInfo info_;
  const unsigned opening_;
};

}  // namespace diskferry::sim
