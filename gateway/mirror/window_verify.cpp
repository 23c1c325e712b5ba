// Reading the target back and comparing it with what it is known to hold. See window.hpp. Writes go on
// meanwhile: a block that is pending, or is told of anew while it is read, proves nothing and is left out.
#include "gateway/mirror/window.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry {
namespace {

/// Reads in flight at a time, of a group of blocks each.
constexpr std::size_t readers_max = 16;
/// For so much at a time the target is asked where it promises zeros, which need not be read.
constexpr std::uint64_t stretch_blocks = 64 * group_blocks;
constexpr std::size_t extents_max = 1024;

bool promises_zeros(const std::vector<Extent>& extents, Range range) {
  std::uint64_t covered = range.offset;
  for (const Extent& extent : extents) {
    if (extent.end() <= covered) continue;
    if (extent.offset > covered || !extent.reads_zero || covered >= range.end()) break;
    covered = extent.end();
  }
  return covered >= range.end();
}
/// A block that was written twice while it was read may look wrong once; one that is wrong stays so.
constexpr int looks_max = 5;

}  // namespace

struct Window::Verification {
  std::atomic<std::uint64_t> next_block = 0;
  std::atomic<std::uint64_t>& verified_bytes;
};

struct Window::Expected {
  std::uint64_t first = 0;  ///< block
  unsigned count = 0;
  std::uint64_t known = 0;  ///< a bit a block whose hash is given
  std::array<BlockHash, group_blocks> hash{};

  bool is_zero() const noexcept {
    for (unsigned i = 0; i < count; ++i)
      if ((known >> i & 1) == 0 || !hash[i].is_zero()) return false;
    return true;
  }
};

/// What the target holds of these blocks, as far as that is known and nothing is on its way there.
Window::Expected Window::expect(std::uint64_t first, unsigned count) {
  Expected expected{.first = first, .count = count};
  std::vector<std::byte> scratch(block_bytes_);
  std::lock_guard lock(guard_);
  for (unsigned i = 0; i < count; ++i) {
    const std::uint64_t offset = (first + i) * block_bytes_;
    const std::uint64_t bytes = std::min<std::uint64_t>(block_bytes_, size_bytes_ - offset);
    expected.hash[i] = table_->known(first + i);
    if (!expected.hash[i].is_known()) continue;
    if (!pending_.is_empty() &&
        pending_.read({offset, bytes}, scratch.data()) != PendingBlocks::Lookup::at_target)
      continue;
    expected.known |= std::uint64_t{1} << i;
  }
  return expected;
}

/// The blocks that are not what they should be, a bit each; those of `bytes` that changed meanwhile are not.
std::uint64_t Window::find_wrong(const Expected& before, std::span<const std::byte> bytes) {
  std::uint64_t wrong = 0;
  for (unsigned i = 0; i < before.count; ++i) {
    if ((before.known >> i & 1) == 0) continue;
    const std::size_t begin = std::size_t{i} * block_bytes_;
    const auto block = bytes.subspan(begin, std::min<std::size_t>(block_bytes_, bytes.size() - begin));
    if (hash_block(block, seed_) != before.hash[i]) wrong |= std::uint64_t{1} << i;
  }
  if (wrong == 0) return 0;
  const Expected after = expect(before.first, before.count);
  for (unsigned i = 0; i < before.count; ++i)
    if ((after.known >> i & 1) == 0 || after.hash[i] != before.hash[i]) wrong &= ~(std::uint64_t{1} << i);
  return wrong;
}

/// A stretch is whole groups; `buffer` holds one.
Task<Result<void>> Window::verify_group(std::uint64_t first, std::span<std::byte> buffer,
                                        const std::vector<Extent>& extents, Verification& shared) {
  const Range range{first * block_bytes_,
                    std::min<std::uint64_t>(buffer.size(), size_bytes_ - first * block_bytes_)};
  const auto count = static_cast<unsigned>((range.length + block_bytes_ - 1) / block_bytes_);
  const auto into = buffer.first(range.length);
  std::uint64_t wrong = 0;
  for (int look = 0; look < looks_max; ++look) {
    DISKFERRY_CO_CHECK(check_usable_now());
    const Expected expected = expect(first, count);
    if (expected.known == 0) co_return Result<void>{};
    if (!expected.is_zero() || !promises_zeros(extents, range)) {
      if (!limit_.try_take(1)) DISKFERRY_CO_CHECK(co_await limit_.take(1));
      limit_.owe(range.length);
      DISKFERRY_CO_CHECK(co_await target_->read(range.offset, into));
      wrong = find_wrong(expected, into);
    }
    if (wrong != 0) continue;
    shared.verified_bytes += static_cast<std::uint64_t>(std::popcount(expected.known)) * block_bytes_;
    co_return Result<void>{};
  }
  const std::uint64_t block = first + static_cast<unsigned>(std::countr_zero(wrong));
  Error error = fail(ErrorKind::mismatch, "verify the target", info_.name)
                    .at(block * block_bytes_, block_bytes_)
                    .why(fmt::format("block {} is not what was written there", block))
                    .remedy("do not trust that storage; name a target elsewhere");
  std::lock_guard lock(guard_);
  fail_with(error);
  co_return unexpected(std::move(error));
}

Task<Result<void>> Window::verify_loop(Verification& shared) {
  const std::uint64_t blocks = (size_bytes_ + block_bytes_ - 1) / block_bytes_;
  std::vector<std::byte> buffer(std::size_t{group_blocks} * block_bytes_);
  while (!co_await is_cancelled()) {
    const std::uint64_t first = shared.next_block.fetch_add(stretch_blocks);
    if (first >= blocks) co_return Result<void>{};
    const std::uint64_t end = std::min(blocks, first + stretch_blocks);
    std::vector<Extent> extents;
    if (target_->info().can_report_extents) {
      const Range stretch{first * block_bytes_,
                          std::min(end * block_bytes_, size_bytes_) - first * block_bytes_};
      DISKFERRY_CO_TRY(extents, co_await target_->extents(stretch, extents_max));
    }
    for (std::uint64_t block = first; block < end; block += group_blocks)
      DISKFERRY_CO_CHECK(co_await verify_group(block, buffer, extents, shared));
  }
  co_return unexpected(cancelled_error("verify", info_.name));
}

Task<Result<void>> Window::verify(std::atomic<std::uint64_t>& verified_bytes) {
  Verification shared{.verified_bytes = verified_bytes};
  TaskGroup readers(co_await boost::asio::this_coro::executor);
  for (std::size_t i = 0; i < readers_max; ++i)
    readers.spawn_on(context_.reactors[i % context_.reactors.size()], verify_loop(shared));
  co_return co_await readers.join();
}

}  // namespace diskferry
