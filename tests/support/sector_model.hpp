// What each sector of a disk may hold, when several write to it at once and each write is told to the model
// before it begins and after it has succeeded. Contents are told by a number; 0 is zeros. Thread-safe.
#pragma once

#include "diskferry/extent.hpp"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace diskferry::test {

inline constexpr std::uint64_t sector_bytes = 512;
/// What a disk holds that nobody has written to and that does not start with zeros: 0xEE.
inline constexpr std::uint64_t unwritten = 99;

/// A sector, or the beginning of one, with that content.
void fill_sector(std::span<std::byte> into, std::uint64_t content, std::uint64_t sector);
/// The same of several.
void fill_sectors(std::span<std::byte> into, std::uint64_t content, std::uint64_t first_sector);

class SectorModel {
 public:
  /// What a read may see of a sector while it is being written: all of the old or of the new, or, of a file
  /// that the kernel is copying into, some of each.
  enum class InFlight : std::uint8_t { is_whole, may_be_torn };
  SectorModel(std::uint64_t size_bytes, std::uint64_t initial, InFlight in_flight = InFlight::is_whole);

  struct Token {
    Range sectors;
    std::uint64_t begin = 0;
  };
  /// From now on the content may be there.
  Token begin(Range bytes, std::uint64_t content);
  /// From now on what was there before is not there any more. One that failed does not end.
  void end(const Token& token);
  std::uint64_t now();
  /// Empty when `bytes`, which lie at `offset`, may be seen by who began to look at `since`.
  std::string check(std::span<const std::byte> bytes, std::uint64_t offset, std::uint64_t since);

 private:
  struct Write {
    std::uint64_t content;
    std::uint64_t begin;
    std::uint64_t end;
  };
  std::string history(std::uint64_t sector, std::span<const std::byte> bytes, std::uint64_t since) const;
  bool may_hold(std::uint64_t sector, std::span<const std::byte> bytes, std::uint64_t since) const;

  const std::uint64_t size_bytes_;
  const InFlight in_flight_;
  std::mutex guard_;
  std::uint64_t time_ = 0;
  std::vector<std::vector<Write>> sectors_;
};

}  // namespace diskferry::test
