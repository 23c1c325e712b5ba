// Hostile and damaged images: each gets a clear error at open or at the damaged place, never more than
// bounded memory, and the rest stays readable. The rows follow the list of bad inputs in docs/qcow2.md.
#include "drivers/image/image.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/tiny_qcow2.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <functional>

namespace diskferry::test {
namespace {

struct Row {
  std::string name;
  std::function<void(TinyQcow2&)> damage;
  ErrorKind kind;
  std::string word;  ///< in the message
  unsigned version = 3;
  unsigned cluster_bits = 16;
  bool at_read = false;  ///< it opens, and reading guest cluster 0 fails; cluster 1 reads
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class BadImage : public ::testing::TestWithParam<Row> {};

TEST_P(BadImage, IsRefusedWithAClearError) {
  const Row& row = GetParam();
  TemporaryFolder folder;
  TinyQcow2 image(row.version, row.cluster_bits);
  row.damage(image);
  image.write_to(folder / "image.qcow2");
  const auto before = std::filesystem::file_size(folder / "image.qcow2");
  auto opened =
      run(open_image(runtime().context(), ImageUri::from_path(folder / "image.qcow2"), {.format = "qcow2"}));
  if (!row.at_read) {
    ASSERT_FALSE(opened) << "was opened";
    EXPECT_EQ(opened.error().kind(), row.kind) << opened.error().message();
    EXPECT_NE(opened.error().message().find(row.word), std::string::npos) << opened.error().message();
    return;
  }
  auto good = must(std::move(opened));
  std::vector<std::byte> data(image.cluster);
  const auto read = run(good.device().read(0, data));
  ASSERT_FALSE(read) << "was read";
  EXPECT_EQ(read.error().kind(), row.kind) << read.error().message();
  EXPECT_NE(read.error().message().find(row.word), std::string::npos) << read.error().message();
  EXPECT_TRUE(read.error().position()) << read.error().message();
  const auto attempt = good.device().try_read(0, data);
  EXPECT_TRUE(!attempt || !*attempt);
  must(run(good.device().read(image.cluster, data)));
  EXPECT_TRUE(is_zero(data));
  must(run(good.close()));
  EXPECT_EQ(std::filesystem::file_size(folder / "image.qcow2"), before);
}

const std::vector<Row> header_rows{
    {"backing_name_outside_first_cluster",
     [](auto& i) {
       i.backing("x");
       i.put64(8, 65530);
       i.put32(16, 100);
     },
     ErrorKind::corrupt, "backing name"},
    {"backing_name_too_long",
     [](auto& i) {
       i.backing("x");
       i.put32(16, 1024);
     },
     ErrorKind::corrupt, "1023"},
    {"backing_name_in_header",
     [](auto& i) {
       i.backing("x");
       i.put64(8, 16);
     },
     ErrorKind::corrupt, "backing name"},
    {"backing_name_offset_2_63",
     [](auto& i) {
       i.backing("x");
       i.put64(8, UINT64_MAX - 3);
     },
     ErrorKind::corrupt, "backing name"},
    {"header_length_huge", [](auto& i) { i.put32(100, 0xffffffff); }, ErrorKind::corrupt, "header length"},
    {"header_length_short", [](auto& i) { i.put32(100, 96); }, ErrorKind::corrupt, "header length"},
    {"header_length_odd", [](auto& i) { i.put32(100, 110); }, ErrorKind::corrupt, "header length"},
    {"extension_too_large",
     [](auto& i) {
       i.put32(112, 0x12345678);
       i.put32(116, 0xfffffff0);
     },
     ErrorKind::corrupt, "extension"},
    {"extension_past_cluster",
     [](auto& i) {
       i.put32(112, 0x12345678);
       i.put32(116, 65536 - 119);
     },
     ErrorKind::corrupt, "extension"},
    {"extension_twice",
     [](auto& i) { i.put_extension(i.put_extension(112, 0xe2792aca, "raw"), 0xe2792aca, "qcow2"); },
     ErrorKind::corrupt, "twice"},
    {"cluster_bits_0", [](auto& i) { i.put32(20, 0); }, ErrorKind::corrupt, "clusters of 2^0"},
    {"cluster_bits_8", [](auto& i) { i.put32(20, 8); }, ErrorKind::corrupt, "2^8"},
    {"cluster_bits_22", [](auto& i) { i.put32(20, 22); }, ErrorKind::corrupt, "2^22"},
    {"cluster_bits_63", [](auto& i) { i.put32(20, 63); }, ErrorKind::corrupt, "2^63"},
    {"cluster_bits_max", [](auto& i) { i.put32(20, 0xffffffff); }, ErrorKind::corrupt, "2^4294967295"},
    {"l1_huge", [](auto& i) { i.put32(36, 0xffffffff); }, ErrorKind::too_large, "L1"},
    {"l1_past_end", [](auto& i) { i.put32(36, 0x3fffff); }, ErrorKind::corrupt, "L1"},
    {"l1_unaligned", [](auto& i) { i.put64(40, i.at(3) + 8); }, ErrorKind::corrupt, "L1"},
    {"l1_near_2_63", [](auto& i) { i.put64(40, 0x7fffffffffff0000); }, ErrorKind::corrupt, "L1"},
    {"l1_beyond_end", [](auto& i) { i.put64(40, i.at(100)); }, ErrorKind::corrupt, "beyond the end"},
    {"l1_too_small", [](auto& i) { i.put32(36, 0); }, ErrorKind::corrupt, "too few"},
    {"l1_in_header", [](auto& i) { i.put64(40, 0); }, ErrorKind::corrupt, "header"},
    {"l1_on_refcount_table", [](auto& i) { i.put64(40, i.at(1)); }, ErrorKind::corrupt, "overlaps"},
    {"size_2_63", [](auto& i) { i.put64(24, INT64_MAX); }, ErrorKind::too_large, "disk of"},
    {"size_2_64", [](auto& i) { i.put64(24, UINT64_MAX); }, ErrorKind::too_large, "disk of"},
    {"refcount_table_empty", [](auto& i) { i.put32(56, 0); }, ErrorKind::corrupt, "refcount table"},
    {"refcount_table_huge", [](auto& i) { i.put32(56, 0xffffffff); }, ErrorKind::too_large, "refcount table"},
    {"refcount_table_over_limit", [](auto& i) { i.put32(56, 129); }, ErrorKind::too_large, "refcount table"},
    {"refcount_table_unaligned", [](auto& i) { i.put64(48, i.at(1) + 512); }, ErrorKind::corrupt,
     "refcount table"},
    {"refcount_table_past_end", [](auto& i) { i.put64(48, i.at(1000)); }, ErrorKind::corrupt,
     "beyond the end"},
    {"refcount_order_7", [](auto& i) { i.put32(96, 7); }, ErrorKind::corrupt, "refcounts"},
    {"refcount_order_max", [](auto& i) { i.put32(96, 0xffffffff); }, ErrorKind::corrupt, "refcounts"},
    {"snapshots_max",
     [](auto& i) {
       i.put32(60, 0xffffffff);
       i.put64(64, i.at(6));
     },
     ErrorKind::too_large, "snapshots"},
    {"snapshots_65537",
     [](auto& i) {
       i.put32(60, 65537);
       i.put64(64, i.at(6));
     },
     ErrorKind::too_large, "snapshots"},
    {"snapshots_at_2_63",
     [](auto& i) {
       i.put32(60, 1);
       i.put64(64, std::uint64_t{1} << 63);
     },
     ErrorKind::corrupt, "snapshot table"},
    {"snapshots_end_early",
     [](auto& i) {
       i.put32(60, 60000);
       i.put64(64, i.at(6));
     },
     ErrorKind::corrupt, "snapshot"},
    {"snapshot_extra_data",
     [](auto& i) {
       i.put32(60, 1);
       i.put64(64, i.at(6));
       i.put32(i.at(6) + 36, 1025);
     },
     ErrorKind::corrupt, "extra data"},
    {"snapshot_names_end_early",
     [](auto& i) {
       i.put32(60, 1);
       i.put64(64, i.at(6));
       i.put32(i.at(6) + 12, 0xffffffff);
     },
     ErrorKind::corrupt, "ends inside an entry"},
    {"compression_type_255",
     [](auto& i) {
       i.put64(72, 8);
       i.bytes[104] = std::byte{255};
     },
     ErrorKind::unsupported, "compression type 255"},
    {"compression_bit_without_type", [](auto& i) { i.put64(72, 8); }, ErrorKind::corrupt, "contradict"},
    {"compression_type_without_bit", [](auto& i) { i.bytes[104] = std::byte{1}; }, ErrorKind::corrupt,
     "contradict"},
    {"unknown_feature_unnamed", [](auto& i) { i.put64(72, std::uint64_t{1} << 17); }, ErrorKind::unsupported,
     "incompatible feature bit 17"},
    {"unknown_feature_named",
     [](auto& i) {
       i.put64(72, std::uint64_t{1} << 63);
       std::string entry(48, '\0');
       entry[1] = 63;
       entry.replace(2, 11, "time travel");
       i.put_extension(112, 0x6803f857, entry);
     },
     ErrorKind::unsupported, "time travel"},
    {"extended_l2_small_clusters", [](auto& i) { i.put64(72, 16); }, ErrorKind::corrupt, "16 KiB", 3, 13},
    {"aes", [](auto& i) { i.put32(32, 1); }, ErrorKind::unsupported, "AES"},
    {"luks", [](auto& i) { i.put32(32, 2); }, ErrorKind::unsupported, "LUKS"},
    {"luks_header_past_end",
     [](auto& i) {
       i.put32(32, 2);
       i.put_extension(112, 0x0537be77, std::string(16, '\xff'));
     },
     ErrorKind::unsupported, "LUKS"},
    {"encryption_unknown", [](auto& i) { i.put32(32, 3); }, ErrorKind::unsupported, "encrypted"},
    {"encryption_header_alone", [](auto& i) { i.put_extension(112, 0x0537be77, std::string(16, '\0')); },
     ErrorKind::corrupt, "encryption"},
    {"data_file_without_name", [](auto& i) { i.put64(72, 4); }, ErrorKind::corrupt, "data file"},
    {"data_file_not_allowed",
     [](auto& i) {
       i.put64(72, 4);
       i.put_extension(112, 0x44415441, "/etc/passwd");
     },
     ErrorKind::permission, "--allow-data-file"},
    {"raw_data_file_without_data_file", [](auto& i) { i.put64(88, 2); }, ErrorKind::corrupt, "raw external"},
    {"raw_data_file_with_backing",
     [](auto& i) {
       i.put64(72, 4);
       i.put64(88, 2);
       i.backing("b");
       i.put_extension(112, 0x44415441, "x");
     },
     ErrorKind::corrupt, "cannot have a backing image"},
    {"version_1", [](auto& i) { i.put32(4, 1); }, ErrorKind::unsupported, "version 1"},
    {"version_4", [](auto& i) { i.put32(4, 4); }, ErrorKind::unsupported, "version 4"},
};

const std::vector<Row> table_rows{
    {"l1_entry_unaligned", [](auto& i) { i.put64(i.at(3), (i.at(4) + 512) | TinyQcow2::copied); },
     ErrorKind::corrupt, "L1 entry"},
    {"l1_entry_reserved", [](auto& i) { i.put64(i.at(3), i.at(4) | 2); }, ErrorKind::corrupt, "reserved"},
    {"l1_entry_beyond_end", [](auto& i) { i.put64(i.at(3), i.at(4000)); }, ErrorKind::corrupt,
     "beyond the end"},
    {"l1_entry_at_2_56", [](auto& i) { i.put64(i.at(3), 0x00ffffffffff0000); }, ErrorKind::corrupt,
     "beyond the end"},
};
const std::vector<Row> entry_rows{
    {"l2_entry_unaligned", [](auto& i) { i.put64(i.l2_entry(0), i.at(5) + 512); }, ErrorKind::corrupt,
     "L2 entry", 3, 16, true},
    {"l2_entry_reserved_low", [](auto& i) { i.put64(i.l2_entry(0), i.at(5) | 4); }, ErrorKind::corrupt,
     "reserved", 3, 16, true},
    {"l2_entry_reserved_high", [](auto& i) { i.put64(i.l2_entry(0), i.at(5) | std::uint64_t{1} << 57); },
     ErrorKind::corrupt, "reserved", 3, 16, true},
    {"l2_entry_beyond_end", [](auto& i) { i.put64(i.l2_entry(0), i.at(4000)); }, ErrorKind::corrupt,
     "beyond the end", 3, 16, true},
    {"zero_cluster_unaligned", [](auto& i) { i.put64(i.l2_entry(0), (i.at(5) + 1024) | 1); },
     ErrorKind::corrupt, "L2 entry", 3, 16, true},
    {"zero_cluster_in_v2", [](auto& i) { i.put64(i.l2_entry(0), i.at(5) | 1); }, ErrorKind::corrupt,
     "version 2", 2, 16, true},
    {"compressed_beyond_end", [](auto& i) { i.put64(i.l2_entry(0), TinyQcow2::compressed | i.at(4000)); },
     ErrorKind::corrupt, "beyond the end", 3, 16, true},
    {"compressed_garbage",
     [](auto& i) {
       i.put64(i.l2_entry(0), TinyQcow2::compressed | std::uint64_t{255} << 54 | (i.at(5) + 77));
     },
     ErrorKind::corrupt, "inflate", 3, 16, true},
    {"compressed_garbage_2M",
     [](auto& i) {
       i.put64(i.l2_entry(0), TinyQcow2::compressed | std::uint64_t{8191} << 49 | (i.at(5) + 77));
     },
     ErrorKind::corrupt, "inflate", 3, 21, true},
    {"zstd_garbage",
     [](auto& i) {
       i.put64(72, 8);
       i.bytes[104] = std::byte{1};
       i.put64(i.l2_entry(0), TinyQcow2::compressed | i.at(5));
     },
     ErrorKind::corrupt, "inflate", 3, 16, true},
    {"zstd_frame_ends_early",
     [](auto& i) {
       i.put64(72, 8);
       i.bytes[104] = std::byte{1};
       // A frame of one raw block of three bytes, then zeros.
       i.put_text(i.at(5), std::string("\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00"
                                       "abc",
                                       12) +
                               std::string(600, '\0'));
       i.put64(i.l2_entry(0), TinyQcow2::compressed | i.at(5));
     },
     ErrorKind::corrupt, "inflate", 3, 16, true},
    {"subcluster_both_bits",
     [](auto& i) {
       i.put64(72, 16);
       i.put64(i.at(4) + 8, 0x0000000100000001);
     },
     ErrorKind::corrupt, "allocated and zero", 3, 16, true},
    {"subcluster_without_cluster",
     [](auto& i) {
       i.put64(72, 16);
       i.put64(i.at(4), 0);
       i.put64(i.at(4) + 8, 1);
     },
     ErrorKind::corrupt, "no cluster", 3, 16, true},
};

std::string name_of(const ::testing::TestParamInfo<Row>& test) {
  return test.param.name;
}
INSTANTIATE_TEST_SUITE_P(Header, BadImage, ::testing::ValuesIn(header_rows), name_of);
INSTANTIATE_TEST_SUITE_P(Entries, BadImage, ::testing::ValuesIn(entry_rows), name_of);

class BadL1Entry : public ::testing::TestWithParam<Row> {};
TEST_P(BadL1Entry, MakesReadsAndExtentsFail) {
  TemporaryFolder folder;
  TinyQcow2 image;
  GetParam().damage(image);
  image.write_to(folder / "i");
  auto opened =
      must(run(open_image(runtime().context(), ImageUri::from_path(folder / "i"), {.format = "qcow2"})));
  std::vector<std::byte> data(512);
  const auto read = run(opened.device().read(4096, data));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind(), ErrorKind::corrupt);
  EXPECT_NE(read.error().message().find(GetParam().word), std::string::npos) << read.error().message();
  EXPECT_FALSE(run(opened.device().extents({0, 65536}, 10)));
  must(run(opened.close()));
}
INSTANTIATE_TEST_SUITE_P(Entries, BadL1Entry, ::testing::ValuesIn(table_rows), name_of);

Image open_tiny(const TemporaryFolder& folder, const TinyQcow2& image) {
  image.write_to(folder / "image.qcow2");
  return must(
      run(open_image(runtime().context(), ImageUri::from_path(folder / "image.qcow2"), {.format = "qcow2"})));
}

TEST(TinyImage, IsValidAndReads) {
  for (const unsigned bits : {9u, 12u, 16u, 21u}) {
    TemporaryFolder folder;
    TinyQcow2 tiny(3, bits);
    auto image = open_tiny(folder, tiny);
    std::vector<std::byte> data(tiny.cluster + 10);
    must(run(image.device().read(0, data)));
    EXPECT_EQ(data[tiny.cluster - 1], std::byte{0x11});
    EXPECT_EQ(data[tiny.cluster], std::byte{0});
    must(run(image.close()));
  }
}

TEST(TinyImage, DirtyAndCorruptImagesAreReadButACorruptOneIsNotWritten) {
  TemporaryFolder folder;
  TinyQcow2 tiny;
  tiny.put64(72, 3);
  auto image = open_tiny(folder, tiny);
  EXPECT_TRUE(image.layers()[0].is_dirty);
  EXPECT_TRUE(image.layers()[0].is_corrupt);
  must(run(image.close()));
  const auto writable = run(open_image(runtime().context(), ImageUri::from_path(folder / "image.qcow2"),
                                       {.format = "qcow2", .writable = true}));
  ASSERT_FALSE(writable);
  EXPECT_EQ(writable.error().kind(), ErrorKind::read_only) << writable.error().message();
}

TEST(TinyImage, ATableThatPointsIntoMetadataIsReadAsData) {
  TemporaryFolder folder;
  TinyQcow2 tiny;
  tiny.put64(tiny.l2_entry(0), tiny.at(3));  // the L1 table as data: of no harm to a reader
  auto image = open_tiny(folder, tiny);
  std::vector<std::byte> data(8);
  must(run(image.device().read(0, data)));
  EXPECT_EQ(load_big<std::uint64_t>(data.data()), tiny.at(4) | TinyQcow2::copied);
  must(run(image.close()));
}

/// Every length the file may have been cut to: it opens or not, it reads or not, always with an error of
/// ours.
TEST(TinyImage, CutAtEverySector) {
  TemporaryFolder folder;
  TinyQcow2 tiny(3, 12);
  const auto whole = tiny.bytes;
  for (std::size_t length = 0; length <= whole.size(); length += 512) {
    tiny.bytes.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    tiny.write_to(folder / "cut.qcow2");
    auto opened =
        run(open_image(runtime().context(), ImageUri::from_path(folder / "cut.qcow2"), {.format = "qcow2"}));
    if (!opened) {
      EXPECT_EQ(opened.error().kind(), ErrorKind::corrupt) << length << opened.error().message();
      continue;
    }
    std::vector<std::byte> data(tiny.cluster * 16);
    const auto read = run(opened->device().read(0, data));
    EXPECT_EQ(read.has_value(), length > tiny.at(5)) << length;
    must(run(opened->close()));
  }
}

TEST(TinyImage, BrokenBitmapsAreListedWithTheReasonAndTheDiskReads) {
  struct BitmapRow {
    std::string problem;
    std::function<void(TinyQcow2&)> damage;
  };
  const auto extension = [](TinyQcow2& i, std::uint32_t count, std::uint64_t bytes, std::uint64_t offset) {
    std::string data(24, '\0');
    auto* raw = reinterpret_cast<std::byte*>(data.data());
    store_big(raw, count);
    store_big(raw + 8, bytes);
    store_big(raw + 16, offset);
    i.put_extension(112, 0x23852875, data);
    i.put64(88, 1);
    // One entry: table at cluster 6 (with the directory in its second half), granularity 64 KiB, named "b".
    const std::size_t entry = i.at(6) + 4096;
    i.put64(entry, i.at(5));
    i.put32(entry + 8, 1);
    i.bytes[entry + 16] = std::byte{1};
    i.bytes[entry + 17] = std::byte{16};
    i.bytes[entry + 19] = std::byte{1};
    i.bytes[entry + 24] = std::byte{'b'};
    std::memmove(i.bytes.data() + i.at(6), i.bytes.data() + entry, 32);
  };
  const std::vector<BitmapRow> rows{
      {"cannot have 0 entries", [&](auto& i) { extension(i, 0, 32, i.at(6)); }},
      {"cannot have 65536 entries", [&](auto& i) { extension(i, 65536, 32, i.at(6)); }},
      {"host offset", [&](auto& i) { extension(i, 1, 32, i.at(6) + 8); }},
      {"host offset", [&](auto& i) { extension(i, 1, std::uint64_t{1} << 40, i.at(6)); }},
      {"but has none", [&](auto& i) { i.put64(88, 1); }},
      {"granularity",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.bytes[i.at(6) + 17] = std::byte{63};
       }},
      {"damaged",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.bytes[i.at(6) + 18] = std::byte{255};
       }},
      {"damaged",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.put32(i.at(6) + 20, 0xffffffff);
       }},
      {"damaged", [&](auto& i) { extension(i, 2, 32, i.at(6)); }},
      {"not closed properly",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.bytes[i.at(6) + 15] = std::byte{1};
       }},
      {"reserved flags",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.put32(i.at(6) + 12, 0x80);
       }},
      {"entries",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.put32(i.at(6) + 8, 2);
       }},
      {"host offset",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.put64(i.at(6), i.at(5) + 8);
       }},
      {"does not know bitmaps",
       [&](auto& i) {
         extension(i, 1, 32, i.at(6));
         i.put64(88, 0);
       }},
  };
  for (const BitmapRow& row : rows) {
    SCOPED_TRACE(row.problem);
    TemporaryFolder folder;
    TinyQcow2 tiny;
    row.damage(tiny);
    auto image = open_tiny(folder, tiny);
    EXPECT_LT(image.bitmaps().size(), image.layers()[0].bitmaps.size());
    bool is_told = false;
    for (const auto& one : image.layers()[0].bitmaps)
      is_told |= one.problem.find(row.problem) != std::string::npos;
    EXPECT_TRUE(is_told) << (image.layers()[0].bitmaps.empty() ? "none listed"
                                                               : image.layers()[0].bitmaps[0].problem);
    std::vector<std::byte> data(512);
    must(run(image.device().read(0, data)));
    must(run(image.close()));
  }
  // A bitmap whose table has reserved bits set: listed as good, the error comes with reading it.
  TemporaryFolder folder;
  TinyQcow2 tiny;
  extension(tiny, 1, 32, tiny.at(6));
  auto image = open_tiny(folder, tiny);
  ASSERT_EQ(image.bitmaps().size(), 1u);
  const auto ranges = run(image.bitmaps()[0]->ranges({0, 65536}, 10));
  ASSERT_FALSE(ranges);
  EXPECT_EQ(ranges.error().kind(), ErrorKind::corrupt);
  must(run(image.close()));
}

}  // namespace
}  // namespace diskferry::test
