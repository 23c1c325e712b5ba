// A bitmap in memory against a plain model: what it answers for any range, in pieces of any size, and while
// others write.
#include "diskferry/units.hpp"
#include "drivers/image/qcow2/recorded_bitmap.hpp"

#include <algorithm>
#include <random>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry::qcow2 {
namespace {

BitmapEntry granularity_of(unsigned bits) {
  BitmapEntry entry;
  entry.granularity_bits = bits;
  return entry;
}

TEST(Qcow2RecordedBitmap, AnswersWhatWasNoted) {
  constexpr std::uint64_t size = 1 * mib + 1536;
  constexpr std::uint64_t granularity = 4096;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    RecordedBitmap bitmap(granularity_of(12), size);
    std::vector<bool> model(size / granularity + 1);
    for (int i = 0; i < 40; ++i) {
      const std::uint64_t offset = random() % size;
      const Range range{offset, std::min(size - offset, random() % (seed % 2 == 0 ? 9000 : 90000))};
      bitmap.note(range);
      for (std::uint64_t at = align_down(offset, granularity); at < range.end() && !range.empty();
           at += granularity)
        model[at / granularity] = true;
    }
    for (const std::size_t ranges_max : {1u, 2u, 1000u}) {
      std::uint64_t at = random() % 10000;
      const std::uint64_t end = size - random() % 10000;
      while (at < end) {
        const auto found = bitmap.ranges({at, end - at}, ranges_max);
        ASSERT_FALSE(found.empty());
        ASSERT_LE(found.size(), ranges_max);
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_EQ(found[i].offset, at);
          ASSERT_NE(found[i].length, 0u);
          if (i != 0) EXPECT_NE(found[i].is_dirty, found[i - 1].is_dirty) << "merged";
          for (; at < found[i].offset + found[i].length; ++at)
            ASSERT_EQ(found[i].is_dirty, model[at / granularity]) << at;
        }
      }
      EXPECT_EQ(at, end);
    }
  }
}

TEST(Qcow2RecordedBitmap, NothingThatWasNotedIsMissedWhileOthersWrite) {
  constexpr std::uint64_t granularity = 512;
  RecordedBitmap bitmap(granularity_of(9), 1 * mib);
  std::atomic<bool> is_over = false;
  // The two of them set bits of the same bytes.
  const auto work = [&](std::uint64_t parity) {
    for (std::uint64_t at = parity * granularity; at < 1 * mib; at += 2 * granularity) {
      bitmap.note({at, 1});
      const auto now = bitmap.ranges({at, granularity}, 2);
      ASSERT_EQ(now.size(), 1u);
      EXPECT_TRUE(now[0].is_dirty) << at;
    }
  };
  std::thread reader([&] {
    while (!is_over) EXPECT_FALSE(bitmap.ranges({0, 1 * mib}, 100000).empty());
  });
  std::thread even(work, 0);
  work(1);
  even.join();
  is_over = true;
  reader.join();
  const auto all = bitmap.ranges({0, 1 * mib}, 2);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_TRUE(all[0].is_dirty);
}

}  // namespace
}  // namespace diskferry::qcow2
