// See storage_read.hpp.
#include "drivers/image/qcow2/storage_read.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry::qcow2 {
namespace {
/// How much of `into` lies inside the storage; the rest is zeroed.
std::span<std::byte> zero_beyond_end(const BlockDevice& storage, std::uint64_t offset,
                                     std::span<std::byte> into) {
  const std::uint64_t size = storage.size_bytes();
  const std::uint64_t inside = offset >= size ? 0 : std::min<std::uint64_t>(into.size(), size - offset);
  std::ranges::fill(into.subspan(inside), std::byte{0});
  return into.first(inside);
}
bool fits_blocks(const BlockDevice& storage, std::uint64_t offset, std::uint64_t length) {
  const std::uint32_t block = storage.info().block_bytes;
  return is_aligned(offset, block) && (is_aligned(length, block) || offset + length == storage.size_bytes());
}
}  // namespace

Task<Result<void>> read_storage(BlockDevice& storage, std::uint64_t offset, std::span<std::byte> into) {
  into = zero_beyond_end(storage, offset, into);
  if (into.empty()) co_return Result<void>{};
  if (fits_blocks(storage, offset, into.size())) co_return co_await storage.read(offset, into);
  // Whole blocks around what is wanted, a bounded piece at a time.
  constexpr std::uint64_t piece_bytes = 256 * kib;
  const std::uint32_t block = storage.info().block_bytes;
  std::vector<std::byte> piece;
  while (!into.empty()) {
    const std::uint64_t first = align_down(offset, block);
    const std::uint64_t end =
        std::min({align_up(offset + into.size(), block), first + piece_bytes, storage.size_bytes()});
    piece.resize(end - first);
    DISKFERRY_CO_CHECK(co_await storage.read(first, piece));
    const std::uint64_t now = std::min<std::uint64_t>(into.size(), end - offset);
    std::memcpy(into.data(), piece.data() + (offset - first), now);
    offset += now;
    into = into.subspan(now);
  }
  co_return Result<void>{};
}

std::optional<Result<void>> try_read_storage(BlockDevice& storage, std::uint64_t offset,
                                             std::span<std::byte> into) {
  into = zero_beyond_end(storage, offset, into);
  if (into.empty()) return Result<void>{};
  if (!fits_blocks(storage, offset, into.size())) return std::nullopt;
  return storage.try_read(offset, into);
}

}  // namespace diskferry::qcow2
