#include "diskferry/units.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/packing.hpp"
#include "drivers/image/qcow2/tables.hpp"

#include <gtest/gtest.h>

namespace diskferry::qcow2 {
namespace {

TEST(Packing, ClustersLieBackToBackAndEachHostClusterCountsThoseThatTouchIt) {
  const std::vector<std::size_t> sizes{1000, 3000, 500, 4000};
  const Packing packing = pack(sizes, {}, {.cluster_bytes = 4096, .references_max = 65535});
  EXPECT_EQ(packing.offsets, (std::vector<std::uint64_t>{0, 1000, 4000, 4500}));
  EXPECT_EQ(packing.references, (std::vector<std::uint64_t>{3, 2, 1}));
  EXPECT_EQ(packing.end, 8500u);
}

TEST(Packing, GoesOnBehindTheLastBatch) {
  const std::vector<std::size_t> sizes{96, 100};
  const Packing packing =
      pack(sizes, {.start = 4000, .references = 7}, {.cluster_bytes = 4096, .references_max = 65535});
  EXPECT_EQ(packing.offsets, (std::vector<std::uint64_t>{4000, 4096}));
  EXPECT_EQ(packing.references, (std::vector<std::uint64_t>{1, 1}));
}

TEST(Packing, AHostClusterWhoseCountIsFullIsLeftForTheNext) {
  const std::vector<std::size_t> sizes{100, 100, 100};
  const Packing packing =
      pack(sizes, {.start = 300, .references = 3}, {.cluster_bytes = 4096, .references_max = 3});
  EXPECT_EQ(packing.offsets, (std::vector<std::uint64_t>{4096, 4196, 4296}));
  EXPECT_EQ(packing.references, (std::vector<std::uint64_t>{0, 3}));
  const Packing alone = pack(sizes, {}, {.cluster_bytes = 4096, .references_max = 1});
  EXPECT_EQ(alone.offsets, (std::vector<std::uint64_t>{0, 4096, 8192}));
  EXPECT_EQ(alone.references, (std::vector<std::uint64_t>{1, 1, 1}));
}

TEST(Layout, PiecesDoNotOverlapAndTheHeaderIsTheLast) {
  for (const unsigned bits : {9u, 12u, 16u, 21u}) {
    for (const unsigned order : {0u, 4u, 6u}) {
      const auto layout = lay_out({.size_bytes = 3 * gib + 1, .cluster_bits = bits, .refcount_order = order});
      ASSERT_TRUE(layout) << layout.error().message();
      EXPECT_EQ(layout->pieces.back().offset, 0u);
      std::uint64_t bytes = 0;
      for (const auto& piece : layout->pieces) bytes += piece.bytes.size();
      EXPECT_EQ(bytes, layout->end_bytes) << bits << " " << order;
      EXPECT_TRUE(check_tables_inside(layout->header, layout->end_bytes, "new"));
    }
  }
}

TEST(Layout, WhatTheFormatDoesNotHaveIsRefusedBeforeAnythingIsWritten) {
  const auto kind = [](const NewImage& image) {
    const auto layout = lay_out(image);
    return layout ? std::optional<ErrorKind>() : layout.error().kind();
  };
  EXPECT_EQ(kind({.size_bytes = mib, .cluster_bits = 8}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = mib, .cluster_bits = 22}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = mib, .refcount_order = 7}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = mib, .cluster_bits = 13, .extended_l2 = true}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = mib, .version = 2, .extended_l2 = true}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = mib, .backing_name = std::string(1024, 'x')}), ErrorKind::invalid_argument);
  EXPECT_EQ(kind({.size_bytes = 8 * tib, .cluster_bits = 9}), ErrorKind::too_large);
  EXPECT_EQ(kind({.size_bytes = 8 * tib}), std::nullopt);
}

}  // namespace
}  // namespace diskferry::qcow2
