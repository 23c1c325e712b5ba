#include "gateway/mirror/granule_map.hpp"

#include "diskferry/assert.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace diskferry {

void GranuleMap::FreeMemory::operator()(std::uint64_t* words) const noexcept {
  std::free(words);  // NOLINT(cppcoreguidelines-no-malloc): calloc gives zeroed memory without touching it
}

GranuleMap::GranuleMap(std::uint64_t granules)
    : granules_(granules),
      own_(static_cast<std::uint64_t*>(
          std::calloc(std::max<std::uint64_t>(1, words_for(granules)), sizeof(std::uint64_t)))),  // NOLINT
      words_(own_.get(), words_for(granules)),
      summary_(words_for(words_.size())) {
  if (!own_) throw std::bad_alloc();
}

GranuleMap::GranuleMap(std::uint64_t granules, std::span<std::uint64_t> words)
    : granules_(granules), words_(words), summary_(words_for(words.size())) {
  DISKFERRY_ASSERT(words.size() == words_for(granules), "a bit for each granule");
  for (std::uint64_t word = 0; word < words_.size(); ++word) {
    // What lies beyond the end means nothing.
    if (word + 1 == words_.size() && granules_ % word_bits != 0)
      words_[word] &= mask(0, granules_ % word_bits);
    if (words_[word] == 0) continue;
    count_ += static_cast<std::uint64_t>(std::popcount(words_[word]));
    summary_[word / word_bits] |= std::uint64_t{1} << word % word_bits;
  }
}

/// Bits [from, to) of a word.
std::uint64_t GranuleMap::mask(std::uint64_t from, std::uint64_t to) noexcept {
  const std::uint64_t below_to = to == word_bits ? ~std::uint64_t{0} : (std::uint64_t{1} << to) - 1;
  return below_to & ~((std::uint64_t{1} << from) - 1);
}

void GranuleMap::note(std::uint64_t word, std::uint64_t value) noexcept {
  if (words_[word] == value) return;
  count_ += static_cast<std::uint64_t>(std::popcount(value));
  count_ -= static_cast<std::uint64_t>(std::popcount(words_[word]));
  words_[word] = value;
  const std::uint64_t bit = std::uint64_t{1} << word % word_bits;
  if (value != 0) {
    summary_[word / word_bits] |= bit;
  } else {
    summary_[word / word_bits] &= ~bit;
  }
}

void GranuleMap::set(GranuleRun run) noexcept {
  for (std::uint64_t at = run.first; at < run.end();) {
    const std::uint64_t end = std::min(run.end(), (at / word_bits + 1) * word_bits);
    note(at / word_bits, words_[at / word_bits] | mask(at % word_bits, (end - 1) % word_bits + 1));
    at = end;
  }
}

void GranuleMap::clear(GranuleRun run) noexcept {
  for (std::uint64_t at = run.first; at < run.end();) {
    const std::uint64_t end = std::min(run.end(), (at / word_bits + 1) * word_bits);
    // A part of the summary that says "nothing here" is passed in one step.
    if (summary_[at / word_bits / word_bits] == 0) {
      at = std::min(run.end(), (at / word_bits / word_bits + 1) * word_bits * word_bits);
      continue;
    }
    note(at / word_bits, words_[at / word_bits] & ~mask(at % word_bits, (end - 1) % word_bits + 1));
    at = end;
  }
}

void GranuleMap::clear_all() noexcept {
  if (count_ != 0) clear({0, granules_});
}

std::uint64_t GranuleMap::find(std::uint64_t from, std::uint64_t end, bool is_set) const noexcept {
  while (from < end) {
    const std::uint64_t word = from / word_bits;
    if (is_set && summary_[word / word_bits] == 0) {
      from = (word / word_bits + 1) * word_bits * word_bits;
      continue;
    }
    const std::uint64_t wanted = (is_set ? words_[word] : ~words_[word]) & mask(from % word_bits, word_bits);
    if (wanted != 0)
      return std::min(end, word * word_bits + static_cast<std::uint64_t>(std::countr_zero(wanted)));
    from = (word + 1) * word_bits;
  }
  return end;
}

std::optional<GranuleRun> GranuleMap::first_set(GranuleRun within, std::uint64_t most) const noexcept {
  if (count_ == 0) return std::nullopt;
  const std::uint64_t first = find(within.first, within.end(), true);
  if (first == within.end()) return std::nullopt;
  const std::uint64_t limit = most < within.end() - first ? first + most : within.end();
  return GranuleRun{first, find(first, limit, false) - first};
}

std::optional<GranuleRun> GranuleMap::first_clear(GranuleRun within) const noexcept {
  const std::uint64_t first = find(within.first, within.end(), false);
  if (first == within.end()) return std::nullopt;
  return GranuleRun{first, find(first, within.end(), true) - first};
}

void GranuleMap::add(const GranuleMap& other) noexcept {
  DISKFERRY_ASSERT(other.granules_ == granules_, "maps of one disk");
  for (std::uint64_t part = 0; part < other.summary_.size(); ++part) {
    for (std::uint64_t left = other.summary_[part]; left != 0; left &= left - 1) {
      const std::uint64_t word = part * word_bits + static_cast<std::uint64_t>(std::countr_zero(left));
      note(word, words_[word] | other.words_[word]);
    }
  }
}

}  // namespace diskferry
