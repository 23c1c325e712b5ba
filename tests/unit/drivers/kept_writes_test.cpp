// What is kept of writes, against bytes in memory.
#include "drivers/filters/kept_writes.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {

std::vector<std::byte> bytes_of(std::size_t length, int value) {
  return std::vector<std::byte>(length, static_cast<std::byte>(value));
}

TEST(KeptWrites, NewerOnesTakeThePlaceOfOlderOnes) {
  KeptWrites kept;
  kept.put(100, KeptWrites::copy_of(bytes_of(100, 1)));
  kept.put(140, KeptWrites::copy_of(bytes_of(20, 2)));
  kept.put_zeros({190, 30}, true);
  const auto found = kept.within({120, 80});
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].range, (Range{120, 20}));
  EXPECT_EQ(found[1].range, (Range{140, 20}));
  EXPECT_EQ(found[1].bytes()[0], std::byte{2});
  EXPECT_EQ(found[2].range, (Range{160, 30}));
  EXPECT_EQ(found[3].range, (Range{190, 10}));
  EXPECT_EQ(found[3].content, nullptr);
  EXPECT_TRUE(found[3].may_unmap);
  EXPECT_EQ(kept.first_within({219, 5})->range, (Range{219, 1}));
  EXPECT_FALSE(kept.first_within({220, 5}));
  EXPECT_FALSE(kept.first_within({0, 100}));
}

TEST(KeptWrites, WhatAFlushHasCoveredIsForgottenAndNothingElse) {
  KeptWrites kept;
  kept.put(0, KeptWrites::copy_of(bytes_of(8, 1)));
  kept.put_zeros({8, 8}, false);
  const std::uint64_t covered = kept.newest();
  kept.put(4, KeptWrites::copy_of(bytes_of(8, 2)));
  kept.forget_until(covered);
  const auto left = kept.all();
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].range, (Range{4, 8}));
  kept.forget_until(kept.newest());
  EXPECT_TRUE(kept.empty());
  EXPECT_EQ(kept.used_bytes(), 0u);
}

TEST(KeptWrites, AContentIsCountedUntilNothingOfItIsLeft) {
  KeptWrites kept;
  kept.put(0, KeptWrites::copy_of(bytes_of(1 * mib, 1)));
  kept.forget({4096, 1 * mib - 8192});
  EXPECT_GE(kept.used_bytes(), 1 * mib) << "both ends are parts of it";
  kept.forget({0, 4096});
  EXPECT_GE(kept.used_bytes(), 1 * mib);
  kept.forget({1 * mib - 1, 1});
  kept.forget({0, 1 * mib});
  EXPECT_EQ(kept.used_bytes(), 0u);
}

TEST(KeptWrites, AnyOrderOfCallsGivesWhatBytesInMemoryGive) {
  constexpr std::uint64_t size_bytes = 512;
  struct Byte {
    std::byte value{};
    std::uint64_t number = 0;
  };
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 50; ++trial) {
    KeptWrites kept;
    std::map<std::uint64_t, Byte> model;
    for (int step = 0; step < 200; ++step) {
      const Range range = [&] {
        const std::uint64_t offset = random() % size_bytes;
        return Range{offset, 1 + random() % std::min<std::uint64_t>(size_bytes - offset, 64)};
      }();
      const auto what = random() % 16;
      if (what < 12) {
        const auto value = static_cast<std::byte>(what < 9 ? 1 + random() % 255 : 0);
        if (value == std::byte{0}) {
          kept.put_zeros(range, false);
        } else {
          kept.put(range.offset, KeptWrites::copy_of(bytes_of(range.length, std::to_integer<int>(value))));
        }
        for (std::uint64_t at = range.offset; at < range.end(); ++at) model[at] = {value, kept.newest()};
      } else if (what < 15) {
        kept.forget(range);
        for (std::uint64_t at = range.offset; at < range.end(); ++at) model.erase(at);
      } else {
        const std::uint64_t number = kept.newest() - std::min<std::uint64_t>(kept.newest(), random() % 8);
        kept.forget_until(number);
        std::erase_if(model, [&](const auto& one) { return one.second.number <= number; });
      }
      std::map<std::uint64_t, std::byte> seen;
      for (const auto& piece : kept.within(range)) {
        for (std::uint64_t i = 0; i < piece.range.length; ++i)
          seen[piece.range.offset + i] = piece.content ? piece.bytes()[i] : std::byte{0};
      }
      std::map<std::uint64_t, std::byte> expected;
      for (auto at = model.lower_bound(range.offset); at != model.end() && at->first < range.end(); ++at)
        expected[at->first] = at->second.value;
      ASSERT_EQ(seen, expected) << "trial " << trial << ", step " << step;
      ASSERT_EQ(kept.first_within(range).has_value(), !expected.empty());
      ASSERT_EQ(kept.empty(), model.empty());
    }
  }
}

}  // namespace
}  // namespace diskferry
