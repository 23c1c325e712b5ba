// The maps against a simple model, and their file.
#include "diskferry/units.hpp"
#include "gateway/mirror/difference_file.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

class GranuleMaps : public testing::TestWithParam<std::uint64_t> {};

TEST_P(GranuleMaps, AreSets) {
  const std::uint64_t size = GetParam();
  std::mt19937_64 random(size);
  std::vector<bool> model(size);
  GranuleMap map(size);
  for (unsigned step = 0; step < 400; ++step) {
    const std::uint64_t first = random() % size;
    const std::uint64_t most = random() % 3 == 0 ? size - first : std::min<std::uint64_t>(size - first, 70);
    const GranuleRun run{first, 1 + random() % most};
    const bool value = random() % 2 == 0;
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), run.count, value);
    if (value) {
      map.set(run);
    } else {
      map.clear(run);
    }
    ASSERT_EQ(map.count(), static_cast<std::uint64_t>(std::ranges::count(model, true)));
    const GranuleRun within{random() % size, 0};
    const GranuleRun asked{within.first, 1 + random() % (size - within.first)};
    const auto expect = [&](bool wanted, std::uint64_t limit) -> std::optional<GranuleRun> {
      std::uint64_t at = asked.first;
      while (at < asked.end() && model[at] != wanted) ++at;
      if (at == asked.end()) return std::nullopt;
      std::uint64_t end = at;
      while (end < asked.end() && end - at < limit && model[end] == wanted) ++end;
      return GranuleRun{at, end - at};
    };
    const std::uint64_t limit = 1 + random() % 100;
    ASSERT_EQ(map.first_set(asked, limit), expect(true, limit)) << "step " << step;
    ASSERT_EQ(map.first_clear(asked), expect(false, UINT64_MAX)) << "step " << step;
  }
}
INSTANTIATE_TEST_SUITE_P(Sizes, GranuleMaps, testing::Values(1, 63, 64, 65, 4096, 4097, 10'000));

TEST(GranuleMap, AddsAnother) {
  GranuleMap a(10'000);
  GranuleMap b(10'000);
  a.set({3, 2});
  b.set({4, 100});
  b.set({9'999, 1});
  a.add(b);
  EXPECT_EQ(a.count(), 102u);
  EXPECT_EQ(a.first_set({0, 10'000}), (GranuleRun{3, 101}));
  EXPECT_EQ(a.first_set({200, 9'800}), (GranuleRun{9'999, 1}));
}

TEST(DifferenceShape, KeepsTheMapSmall) {
  EXPECT_EQ(difference_shape(1 * gib).granule_bytes, 64 * kib);
  EXPECT_EQ(difference_shape(8 * 1024 * gib).granule_bytes, 64 * kib);
  EXPECT_EQ(difference_shape(64 * 1024 * gib).granule_bytes, 256 * kib);
  EXPECT_EQ(difference_shape(64 * kib + 1).granules(), 2u);
}

constexpr std::uint64_t granule = 64 * kib;
constexpr DifferenceShape shape{.size_bytes = 10 * granule + 512, .granule_bytes = granule};

/// With the bits that would be in the file.
struct Kept {
  std::vector<std::uint64_t> words{~std::uint64_t{0}};
  DifferenceMap map{shape, words};
  bool has(std::uint64_t index) const { return (words[0] >> index & 1) != 0; }
};

TEST(DifferenceMap, BeginsWithEverythingDirty) {
  const Kept kept;
  EXPECT_EQ(kept.map.dirty_bytes(), shape.size_bytes);
  EXPECT_EQ(kept.map.first_dirty(0, 4 * granule, false), (Range{0, 4 * granule}));
  EXPECT_EQ(kept.map.first_dirty(9 * granule, 4 * granule, false), (Range{9 * granule, granule + 512}));
  EXPECT_EQ(kept.map.first_dirty(shape.size_bytes, granule, false), std::nullopt);
}

TEST(DifferenceMap, IsSettledOnlyByAFlushThatBeganLater) {
  Kept kept;
  kept.map.begin_copy({0, shape.size_bytes});
  EXPECT_FALSE(kept.map.is_settled());
  EXPECT_TRUE(kept.has(3));
  kept.map.flush_begins();
  kept.map.mark_unsettled({3 * granule + 7, 1});
  kept.map.mark_dirty({5 * granule, 1});
  kept.map.flush_succeeded();
  EXPECT_FALSE(kept.has(2));
  EXPECT_TRUE(kept.has(3));
  EXPECT_TRUE(kept.has(5));
  kept.map.begin_copy({5 * granule, granule});
  kept.map.flush_begins();
  kept.map.flush_succeeded();
  EXPECT_TRUE(kept.map.is_settled());
  EXPECT_EQ(kept.words[0], 0u);
}

TEST(DifferenceMap, WhatATargetLosesIsDirty) {
  Kept kept;
  kept.map.begin_copy({0, shape.size_bytes});
  kept.map.flush_begins();
  kept.map.flush_succeeded();
  kept.map.mark_unsettled({granule, granule});
  kept.map.flush_begins();
  kept.map.mark_unsettled({4 * granule, 1});
  kept.map.lose_unsettled();
  EXPECT_EQ(kept.map.dirty_bytes(), 2 * granule);
  EXPECT_EQ(kept.map.first_dirty(0, shape.size_bytes, false), (Range{granule, granule}));
  kept.map.flush_succeeded();  // of a flush that was under way
  EXPECT_TRUE(kept.has(1));
  EXPECT_TRUE(kept.has(4));
}

TEST(DifferenceMap, SplitsAWriteWhereGranulesAreDirty) {
  Kept kept;
  kept.map.begin_copy({2 * granule, 3 * granule});
  std::vector<Range> parts;
  kept.map.clean_parts({granule, 6 * granule}, parts);
  EXPECT_THAT(parts, testing::ElementsAre(Range{2 * granule, 3 * granule}));
  kept.map.clean_parts({2 * granule + 512, 1024}, parts);
  EXPECT_THAT(parts, testing::ElementsAre(Range{2 * granule + 512, 1024}));
  kept.map.clean_parts({0, 512}, parts);
  EXPECT_THAT(parts, testing::IsEmpty());
}

TEST(DifferenceMap, LeavesWhatIsHotForLater) {
  Kept kept;
  kept.map.begin_copy({0, shape.size_bytes});
  kept.map.mark_dirty({granule, 4 * granule});
  kept.map.mark_written({2 * granule, 1});
  EXPECT_EQ(kept.map.first_dirty(0, shape.size_bytes, true), (Range{granule, granule}));
  EXPECT_EQ(kept.map.first_dirty(2 * granule, shape.size_bytes, true), (Range{3 * granule, 2 * granule}));
  kept.map.next_age();
  EXPECT_EQ(kept.map.first_dirty(2 * granule, shape.size_bytes, true), (Range{3 * granule, 2 * granule}));
  kept.map.next_age();
  EXPECT_EQ(kept.map.first_dirty(0, shape.size_bytes, true), (Range{granule, 4 * granule}));
}

TEST(DifferenceMap, APlanIsVoidWhereAGuestHasWritten) {
  Kept kept;
  kept.map.mark_written({3 * granule, 1});
  kept.map.begin_copy({0, granule});
  const Range all{0, shape.size_bytes};
  EXPECT_EQ(kept.map.first_part(all, true), (Range{3 * granule, granule}));
  EXPECT_EQ(kept.map.first_part(all, false), (Range{granule, 2 * granule}));
  kept.map.begin_copy({3 * granule, granule});
  EXPECT_EQ(kept.map.first_part(all, true), std::nullopt);
}

// --- the file ---------------------------------------------------------------------------------------------

TEST(DifferenceFile, IsThereAsItWasLeft) {
  const test::TemporaryFolder folder;
  {
    const auto file = must(DifferenceFile::create(folder / "map", shape, "a to b"));
    DifferenceMap map(shape, file->words());
    map.begin_copy({0, 7 * granule});
    map.flush_begins();
    map.flush_succeeded();
  }
  const auto file = must(DifferenceFile::open(folder / "map", shape, "a to b"));
  const DifferenceMap map(shape, file->words());
  EXPECT_EQ(map.first_dirty(0, shape.size_bytes, false), (Range{7 * granule, 3 * granule + 512}));
}

struct FileRow {
  std::string name;
  std::function<void(const std::string&)> change;
  ErrorKind kind;
  DifferenceShape asked = shape;
  std::string key = "a to b";
};
class DifferenceFiles : public testing::TestWithParam<FileRow> {};

TEST_P(DifferenceFiles, AreNotBelieved) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "map";
  (void)must(DifferenceFile::create(path, shape, "a to b"));
  GetParam().change(path);
  const auto opened = DifferenceFile::open(path, GetParam().asked, GetParam().key);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind(), GetParam().kind) << opened.error().message();
}

void overwrite(const std::string& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(at);
  file.put('?');
}
INSTANTIATE_TEST_SUITE_P(
    Rows, DifferenceFiles,
    testing::Values(
        FileRow{"gone", [](const std::string& path) { std::filesystem::remove(path); }, ErrorKind::not_found},
        FileRow{"cut", [](const std::string& path) { std::filesystem::resize_file(path, 4100); },
                ErrorKind::corrupt},
        FileRow{"empty", [](const std::string& path) { std::filesystem::resize_file(path, 0); },
                ErrorKind::corrupt},
        FileRow{"damaged", [](const std::string& path) { overwrite(path, 17); }, ErrorKind::corrupt},
        FileRow{"another_key", [](const std::string&) {}, ErrorKind::mismatch, shape, "a to c"},
        FileRow{"another_size", [](const std::string&) {}, ErrorKind::mismatch,
                DifferenceShape{shape.size_bytes - 512, granule}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace diskferry
