// A set of granules (equal pieces of a disk) in bounded memory, as two levels of bits: what is set is found
// in a few steps however large the disk is, and memory that was never touched costs nothing. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace diskferry {

/// Consecutive granules.
struct GranuleRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t end() const noexcept { return first + count; }
  bool operator==(const GranuleRun&) const noexcept = default;
};

/// Not thread-safe. Runs lie inside [0, size()).
class GranuleMap {
 public:
  /// Nothing is set.
  explicit GranuleMap(std::uint64_t granules);
  /// Over bits that lie elsewhere (a mapped file), as they are there. Precondition: words_for(granules) of
  /// them. Lifetime: `words` outlives it.
  GranuleMap(std::uint64_t granules, std::span<std::uint64_t> words);
  GranuleMap(const GranuleMap&) = delete;
  GranuleMap& operator=(const GranuleMap&) = delete;

  static constexpr std::uint64_t words_for(std::uint64_t granules) noexcept {
    return (granules + word_bits - 1) / word_bits;
  }
  std::uint64_t size() const noexcept { return granules_; }
  /// How many are set.
  std::uint64_t count() const noexcept { return count_; }

  void set(GranuleRun run) noexcept;
  void clear(GranuleRun run) noexcept;
  void clear_all() noexcept;
  bool is_set(std::uint64_t granule) const noexcept {
    return (words_[granule / word_bits] >> granule % word_bits & 1) != 0;
  }
  /// The first run of set granules inside `within`, at most `most` of them; nullopt when none is set.
  std::optional<GranuleRun> first_set(GranuleRun within, std::uint64_t most = UINT64_MAX) const noexcept;
  /// The first run of granules that are not set inside `within`.
  std::optional<GranuleRun> first_clear(GranuleRun within) const noexcept;
  /// Adds what is set in `other`, which is as large.
  void add(const GranuleMap& other) noexcept;

 private:
  static constexpr std::uint64_t word_bits = 64;
  struct FreeMemory {
    void operator()(std::uint64_t* words) const noexcept;
  };
  static std::uint64_t mask(std::uint64_t from, std::uint64_t to) noexcept;
  void note(std::uint64_t word, std::uint64_t value) noexcept;
  /// The first granule from `from` on, before `end`, that is set (or not); `end` when there is none.
  std::uint64_t find(std::uint64_t from, std::uint64_t end, bool is_set) const noexcept;

  const std::uint64_t granules_;
  std::unique_ptr<std::uint64_t[], FreeMemory> own_;
  const std::span<std::uint64_t> words_;
  std::vector<std::uint64_t> summary_;  // a bit for each word that is not zero
  std::uint64_t count_ = 0;
};

}  // namespace diskferry
