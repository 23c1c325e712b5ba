// Headers and table entries without I/O: what is parsed comes out again, byte for byte where nobody knows it.
#include "drivers/image/qcow2/header.hpp"
#include "drivers/image/qcow2/tables.hpp"
#include "tests/unit/drivers/tiny_qcow2.hpp"

#include <gtest/gtest.h>

namespace diskferry::qcow2 {
namespace {

Header parse(const test::TinyQcow2& image) {
  auto header = parse_header(std::span(image.bytes).first(image.cluster), "image");
  if (!header) throw std::runtime_error(header.error().message());
  return *std::move(header);
}

TEST(Qcow2Header, WritesBackWhatItParsed) {
  test::TinyQcow2 image;
  image.put32(100, 128);  // a later version's header, 16 bytes longer
  image.put_text(105, "padding");
  image.put_text(112, "further fields..");
  std::size_t at = image.put_extension(128, 0xe2792aca, "qcow2");
  at = image.put_extension(at, 0xabad1dea, "nobody knows this");
  at = image.put_extension(at, 0x6803f857, std::string(48, 'x'));
  image.put_extension(at, 0, "");
  image.backing("../base.qcow2");
  const Header header = parse(image);
  EXPECT_EQ(header.backing_name, "../base.qcow2");
  EXPECT_EQ(header.backing_format, "qcow2");
  EXPECT_EQ(header.extensions.size(), 3u);
  auto written = serialize_header(header);
  ASSERT_TRUE(written);
  // The same up to the backing name, which is packed behind the extensions.
  std::vector<std::byte> expected(image.bytes.begin(),
                                  image.bytes.begin() + static_cast<std::ptrdiff_t>(at + 8));
  store_big(expected.data() + 8, static_cast<std::uint64_t>(at + 8));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), written->begin()));
  const Header again = *parse_header(*written, "again");
  EXPECT_EQ(again.backing_name, header.backing_name);
  EXPECT_EQ(again.extensions, header.extensions);
  EXPECT_EQ(again.further_fields, header.further_fields);
}

TEST(Qcow2Header, Version2HasNoFeatures) {
  const Header header = parse(test::TinyQcow2(2));
  EXPECT_EQ(header.version, 2u);
  EXPECT_EQ(header.refcount_bits(), 16u);
  EXPECT_EQ(serialize_header(header)->size(), 72u + 8u);
}

TEST(Qcow2Header, TooMuchForAClusterIsRefused) {
  Header header = parse(test::TinyQcow2(3, 9));
  header.backing_name.assign(500, 'x');
  const auto written = serialize_header(header);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), ErrorKind::too_large);
}

TEST(Qcow2Tables, GeometryOfEveryClusterSize) {
  for (unsigned bits = cluster_bits_min; bits <= cluster_bits_max; ++bits) {
    Geometry geometry;
    geometry.cluster_bits = bits;
    EXPECT_EQ(geometry.l2_entries() * geometry.l2_entry_bytes(), geometry.cluster_bytes());
    EXPECT_EQ(geometry.l1_entry_covers_bytes(), geometry.l2_entries() * geometry.cluster_bytes());
    const std::uint64_t offset = 5 * geometry.l1_entry_covers_bytes() + 3 * geometry.cluster_bytes() + 7;
    EXPECT_EQ(geometry.l1_index(offset), 5u);
    EXPECT_EQ(geometry.l2_index(offset), 3u);
    EXPECT_EQ(geometry.in_cluster(offset), 7u);
  }
}

TEST(Qcow2Tables, CompressedDescriptorsComeBack) {
  for (unsigned bits = cluster_bits_min; bits <= cluster_bits_max; ++bits) {
    for (const CompressedCluster cluster :
         {CompressedCluster{512, 512}, CompressedCluster{70000, 400}, CompressedCluster{511, 1},
          CompressedCluster{1 << 20, std::uint64_t{1} << (bits - 1)}}) {
      const std::uint64_t raw = encode_compressed(cluster, bits);
      EXPECT_NE(raw & flag_compressed, 0u);
      EXPECT_EQ(raw & flag_copied, 0u);
      const CompressedCluster back = decode_compressed(raw, bits);
      EXPECT_EQ(back.host_offset, cluster.host_offset);
      EXPECT_GE(back.bytes, cluster.bytes);
      EXPECT_LT(back.bytes, cluster.bytes + sector_bytes);
      EXPECT_EQ((back.host_offset + back.bytes) % sector_bytes, 0u);
    }
  }
}

TEST(Qcow2Tables, EntriesComeBack) {
  EntryRules rules;
  for (const bool extended : {false, true}) {
    rules.geometry.extended_l2 = extended;
    for (const ClusterKind kind :
         {ClusterKind::unallocated, ClusterKind::zero, ClusterKind::zero_allocated, ClusterKind::data}) {
      L2Entry entry{.kind = kind};
      if (kind == ClusterKind::zero_allocated || kind == ClusterKind::data) {
        entry.host_offset = 5 << 16;
        entry.has_host_cluster = true;
        entry.is_copied = true;
      }
      const L2Words words = encode_l2(entry, rules);
      const L2Entry back = decode_l2(words.entry, words.bitmap, rules);
      EXPECT_EQ(back.problem, EntryProblem::none);
      EXPECT_EQ(back.kind, kind);
      EXPECT_EQ(back.host_offset, entry.host_offset);
      EXPECT_EQ(back.is_copied, entry.is_copied);
    }
  }
  const L2Entry mixed = decode_l2(std::uint64_t{5} << 16, 0x0000000200000001, rules);
  EXPECT_EQ(mixed.kind, ClusterKind::subclusters);
  EXPECT_EQ(subcluster_kind(mixed, 0), ClusterKind::data);
  EXPECT_EQ(subcluster_kind(mixed, 1), ClusterKind::zero_allocated);
  EXPECT_EQ(subcluster_kind(mixed, 2), ClusterKind::unallocated);
}

TEST(Qcow2Tables, RefcountsOfEveryWidth) {
  for (unsigned order = 0; order <= refcount_order_max; ++order) {
    std::vector<std::byte> block(1024);
    for (const std::uint64_t index : {0u, 1u, 5u, 63u}) {
      store_refcount(block, index, order, refcount_max(order));
      EXPECT_EQ(load_refcount(block, index, order), refcount_max(order));
      EXPECT_EQ(load_refcount(block, index + 1, order),
                index == 0 ? 0 : load_refcount(block, index + 1, order));
      store_refcount(block, index, order, 1);
      EXPECT_EQ(load_refcount(block, index, order), 1u);
    }
  }
}

}  // namespace
}  // namespace diskferry::qcow2
