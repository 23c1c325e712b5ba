#include "gateway/copy/salvage.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// What disks give back at the least.
constexpr std::uint64_t sector_bytes = 512;

std::uint64_t block_of(const BlockDevice& source) {
  return std::max<std::uint64_t>(sector_bytes, source.info().block_bytes);
}

Error lost_at(Error error, Range place) {
  return std::move(error).at(place.offset, place.length);
}

}  // namespace

Salvage::Salvage(const std::vector<Range>& lost) {
  for (const Range range : lost) lost_.add(range);
}

Task<Result<void>> Salvage::read(BlockDevice& source, Range range, std::span<std::byte> into, Error first) {
  if (first.kind() != ErrorKind::io) co_return unexpected(lost_at(std::move(first), range));
  auto lost = co_await lost_parts(source, range, into);
  if (!lost) co_return unexpected(remembered(std::move(lost).error()));
  if (auto noted = note(range, *lost); !noted) co_return unexpected(remembered(std::move(noted).error()));
  co_return Result<void>{};
}

/// Halves of halves, from the beginning on; the first error ends it unless places are skipped.
Task<Result<std::vector<Range>>> Salvage::lost_parts(BlockDevice& source, Range range,
                                                     std::span<std::byte> into) {
  const std::uint64_t block = block_of(source);
  std::vector<Range> lost;
  std::vector<Range> left{range};
  while (!left.empty()) {
    const Range part = left.back();
    left.pop_back();
    const auto bytes = into.subspan(part.offset - range.offset, part.length);
    auto done = co_await source.read(part.offset, bytes);
    if (done) continue;
    if (done.error().kind() != ErrorKind::io) co_return unexpected(lost_at(std::move(done).error(), part));
    if (part.length > block) {
      const std::uint64_t middle = align_up(part.offset + part.length / 2, block);
      const std::uint64_t split = middle < part.end() ? middle : part.end() - block;
      left.push_back({split, part.end() - split});
      left.push_back({part.offset, split - part.offset});
      continue;
    }
    if (!skips_) co_return unexpected(lost_at(std::move(done).error(), part));
    std::ranges::fill(bytes, std::byte{0});
    lost.push_back(part);
  }
  co_return lost;
}

Result<void> Salvage::note(Range range, const std::vector<Range>& lost) {
  std::lock_guard lock(guard_);
  RangeSet now;
  for (const Range part : lost) now.add(part);
  if (lost_.inside(range) == now.inside(range)) return {};
  lost_.remove(range);
  for (const Range part : lost) lost_.add(part);
  ++changes_;
  if (lost_.bytes() <= lost_bytes_max && lost_.pieces() <= lost_pieces_max) return {};
  return unexpected(
      fail(ErrorKind::io, "read")
          .at(range.offset, range.length)
          .why(fmt::format("{} bytes in {} places cannot be read, which is more than is skipped",
                           lost_.bytes(), lost_.pieces()))
          .remedy("take the disk out of a backup; its storage is failing"));
}

Error Salvage::remembered(Error error) {
  if (error.kind() != ErrorKind::io) return error;
  std::lock_guard lock(guard_);
  failure_ = error;
  return error;
}

Task<Result<std::vector<Range>>> Salvage::look_again(BlockDevice& source) {
  std::vector<Range> found;
  const std::uint64_t block = block_of(source);
  std::vector<std::byte> bytes(block);
  for (const Range listed : lost()) {
    for (Range part{listed.offset, 0}; part.offset < listed.end(); part.offset = part.end()) {
      part.length = std::min(block, listed.end() - part.offset);
      const auto done = co_await source.read(part.offset, std::span(bytes).first(part.length));
      if (!done && done.error().kind() != ErrorKind::io) co_return unexpected(done.error());
      if (done) found.push_back(part);
    }
  }
  std::lock_guard lock(guard_);
  for (const Range part : found) lost_.remove(part);
  if (!found.empty()) ++changes_;
  co_return found;
}

std::vector<Range> Salvage::forget() {
  std::lock_guard lock(guard_);
  if (lost_.empty()) return {};
  ++changes_;
  std::vector<Range> was = lost_.inside({0, UINT64_MAX});
  lost_ = {};
  return was;
}

std::vector<Range> Salvage::lost() const {
  std::lock_guard lock(guard_);
  return lost_.inside({0, UINT64_MAX});
}
std::uint64_t Salvage::lost_bytes() const {
  std::lock_guard lock(guard_);
  return lost_.bytes();
}
std::optional<Error> Salvage::failure() const {
  std::lock_guard lock(guard_);
  return failure_;
}
void Salvage::clear_failure() {
  std::lock_guard lock(guard_);
  failure_.reset();
}

}  // namespace diskferry
