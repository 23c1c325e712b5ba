#include "tests/support/sector_model.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>

namespace diskferry::test {
namespace {

std::uint64_t word_of(std::uint64_t content, std::uint64_t sector) {
  if (content == 0) return 0;
  if (content == unwritten) return 0xEEEEEEEEEEEEEEEE;
  return content * 0x9e3779b97f4a7c15u + sector * 0xd6e8feb86659fd93u + 1;
}

}  // namespace

void fill_sector(std::span<std::byte> into, std::uint64_t content, std::uint64_t sector) {
  const std::uint64_t word = word_of(content, sector);
  std::size_t at = 0;
  for (; at + sizeof word <= into.size(); at += sizeof word)
    std::memcpy(into.data() + at, &word, sizeof word);
  std::memcpy(into.data() + at, &word, into.size() - at);
}

void fill_sectors(std::span<std::byte> into, std::uint64_t content, std::uint64_t first_sector) {
  for (std::uint64_t at = 0; at < into.size(); at += sector_bytes)
    fill_sector(into.subspan(at, std::min<std::size_t>(sector_bytes, into.size() - at)), content,
                first_sector + at / sector_bytes);
}

SectorModel::SectorModel(std::uint64_t size_bytes, std::uint64_t initial, InFlight in_flight)
    : size_bytes_(size_bytes),
      in_flight_(in_flight),
      sectors_(divide_up(size_bytes, sector_bytes), {{initial, 0, 0}}) {}

SectorModel::Token SectorModel::begin(Range bytes, std::uint64_t content) {
  std::lock_guard lock(guard_);
  const Range sectors{bytes.offset / sector_bytes,
                      divide_up(bytes.end(), sector_bytes) - bytes.offset / sector_bytes};
  const std::uint64_t now = ++time_;
  for (std::uint64_t at = sectors.offset; at < sectors.end(); ++at)
    sectors_[at].push_back({content, now, UINT64_MAX});
  return {sectors, now};
}

void SectorModel::end(const Token& token) {
  std::lock_guard lock(guard_);
  const std::uint64_t now = ++time_;
  for (std::uint64_t at = token.sectors.offset; at < token.sectors.end(); ++at) {
    for (Write& write : sectors_[at]) {
      if (write.begin == token.begin) write.end = now;
    }
  }
}

std::uint64_t SectorModel::now() {
  std::lock_guard lock(guard_);
  return ++time_;
}

std::string SectorModel::check(std::span<const std::byte> bytes, std::uint64_t offset, std::uint64_t since) {
  std::lock_guard lock(guard_);
  for (std::uint64_t at = 0; at < bytes.size();) {
    const std::uint64_t sector = (offset + at) / sector_bytes;
    const std::uint64_t length =
        std::min<std::uint64_t>({sector_bytes, size_bytes_ - sector * sector_bytes, bytes.size() - at});
    if (!may_hold(sector, bytes.subspan(at, length), since))
      return fmt::format("sector {} holds {:#x}, which was overwritten before{}", sector,
                         std::to_integer<unsigned>(bytes[at]),
                         history(sector, bytes.subspan(at, length), since));
    at += length;
  }
  return {};
}

/// What is known of it, for whoever looks for the reason.
std::string SectorModel::history(std::uint64_t sector, std::span<const std::byte> bytes,
                                 std::uint64_t since) const {
  std::string told = fmt::format("; looked at since {}", since);
  std::array<std::byte, sector_bytes> expected;
  const std::size_t first = sectors_[sector].size() - std::min<std::size_t>(sectors_[sector].size(), 6);
  for (std::size_t i = 0; i < sectors_[sector].size(); ++i) {
    const Write& write = sectors_[sector][i];
    fill_sector(std::span(expected).first(bytes.size()), write.content, sector);
    const auto same =
        std::ranges::mismatch(bytes, std::span(expected).first(bytes.size())).in1 - bytes.begin();
    if (i >= first || same != 0)
      told += fmt::format("; {} from {} to {}{}", write.content, write.begin,
                          write.end == UINT64_MAX ? "now" : std::to_string(write.end),
                          same != 0 ? fmt::format(" is its first {} bytes", same) : "");
  }
  return told;
}

bool SectorModel::may_hold(std::uint64_t sector, std::span<const std::byte> bytes,
                           std::uint64_t since) const {
  std::uint64_t last_before = 0;  // the beginning of the last write that had certainly ended
  bool is_in_flight = false;
  for (const Write& write : sectors_[sector]) {
    if (write.end < since) last_before = std::max(last_before, write.begin);
    is_in_flight = is_in_flight || write.end >= since;
  }
  std::array<std::byte, sector_bytes> expected;
  const bool is_one_of_them = std::ranges::any_of(sectors_[sector], [&](const Write& write) {
    if (write.end < last_before) return false;
    fill_sector(std::span(expected).first(bytes.size()), write.content, sector);
    return std::memcmp(expected.data(), bytes.data(), bytes.size()) == 0;
  });
  if (is_one_of_them) return true;
  if (in_flight_ != InFlight::may_be_torn || !is_in_flight) return false;
  // Every byte is of a write that may be there, be they several: not every word, since the kernel's copying
  // to and from memory that is not aligned to eight bytes, as the middle of a stream is not, splits words.
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const bool is_there = std::ranges::any_of(sectors_[sector], [&](const Write& write) {
      const std::uint64_t word = word_of(write.content, sector);
      return write.end >= last_before && std::as_bytes(std::span(&word, 1))[at % sizeof word] == bytes[at];
    });
    if (!is_there) return false;
  }
  return true;
}

}  // namespace diskferry::test
