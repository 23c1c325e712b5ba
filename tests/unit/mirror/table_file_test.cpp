// The file of a table: it comes back as it was, once, and anything else is refused.
#include "gateway/mirror/table_file.hpp"

#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <random>
#include <sys/stat.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

const TableShape shape{.size_bytes = 20 * mib + 7, .block_bytes = 4096, .bytes_max = mib};

Result<std::unique_ptr<BlockTable>> load(const std::string& path, TableKey key = {"target", shape}) {
  return run(load_block_table(runtime().context(), path, std::move(key)));
}
void save(const BlockTable& table, const std::string& path) {
  must(run(save_block_table(runtime().context(), table, path, "target")));
}
std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// Data, zeros, unknown blocks among zeros, and what is not durable.
void fill(BlockTable& table) {
  table.set(3, {7, 8});
  table.set(5120, {9, 9});
  table.set(700, BlockHash::zero());
  table.set_zero(1024, 1024);
  table.set(1100, {1, 2});
  table.forget(1200, 2);
  table.flush_done(table.flush_begins());
  table.set(4, {5, 5});
  table.set(1300, {5, 5});
  table.set_zero(2048, 1024);
}

TEST(TableFile, ComesBackOnce) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, false);
  fill(table);
  save(table, folder / "table");
  const auto loaded = must(load(folder / "table"));
  EXPECT_EQ(loaded->seed(), 77u);
  EXPECT_EQ(loaded->known(3), (BlockHash{7, 8}));
  EXPECT_EQ(loaded->known(5120), (BlockHash{9, 9}));
  EXPECT_TRUE(loaded->known(700).is_zero());
  EXPECT_TRUE(loaded->known(1024).is_zero());
  EXPECT_EQ(loaded->known(1100), (BlockHash{1, 2}));
  for (const std::uint64_t unknown : {1200u, 1201u, 4u, 1300u, 2048u, 5u, 5119u})
    EXPECT_FALSE(loaded->known(unknown).is_known()) << unknown;
  const auto again = load(folder / "table");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind(), ErrorKind::not_found) << "it would not be true any more";
}

TEST(TableFile, WhatWasLoadedIsDurable) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, true);
  fill(table);
  save(table, folder / "first");
  const std::string first = bytes_of(folder / "first");
  const auto loaded = must(load(folder / "first"));
  save(*loaded, folder / "second");
  EXPECT_EQ(bytes_of(folder / "second"), first);
  EXPECT_FALSE(std::filesystem::exists(folder / "second.unfinished"));
}

TEST(TableFile, ManyEntriesCrossTheChunks) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, true);
  for (std::uint64_t block = 0; block < table.blocks(); block += 1 + block % 3)
    table.set(block, {block + 1, 2});
  table.flush_done(table.flush_begins());
  save(table, folder / "table");
  const auto loaded = must(load(folder / "table"));
  for (std::uint64_t block = 0; block < table.blocks(); ++block)
    ASSERT_EQ(loaded->known(block), table.known(block)) << block;
}

TEST(TableFile, EveryDamagedByteIsFound) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, false);
  fill(table);
  save(table, folder / "table");
  const std::string whole = bytes_of(folder / "table");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    put(folder / "table", damaged);
    const auto loaded = load(folder / "table");
    ASSERT_FALSE(loaded) << at;
    const ErrorKind kind = loaded.error().kind();
    ASSERT_TRUE(kind == ErrorKind::corrupt || kind == ErrorKind::mismatch || kind == ErrorKind::unsupported)
        << loaded.error().message();
  }
  for (std::size_t length = 0; length < whole.size(); length += 7) {
    put(folder / "table", whole.substr(0, length));
    ASSERT_FALSE(load(folder / "table")) << length;
  }
  put(folder / "table", whole + "x");
  EXPECT_FALSE(load(folder / "table"));
  put(folder / "table", whole);
  EXPECT_TRUE(load(folder / "table"));
}

struct Other {
  std::string name;
  TableKey key;
};
class OtherKey : public testing::TestWithParam<Other> {};
TEST_P(OtherKey, IsRefusedAndTheFileStays) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, false);
  save(table, folder / "table");
  const auto loaded = load(folder / "table", GetParam().key);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().kind(), ErrorKind::mismatch);
  EXPECT_TRUE(load(folder / "table"));
}
INSTANTIATE_TEST_SUITE_P(
    Keys, OtherKey,
    testing::Values(Other{"target", {"tarket", shape}}, Other{"longer_name", {"target2", shape}},
                    Other{"size", {"target", {.size_bytes = shape.size_bytes + 1, .block_bytes = 4096}}},
                    Other{"block", {"target", {.size_bytes = shape.size_bytes, .block_bytes = 8192}}}),
    [](const auto& info) { return info.param.name; });

TEST(TableFile, NoPipeAndNoLinkIsFollowed) {
  const test::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_FALSE(load(folder / "pipe"));
  BlockTable table(shape, 77, false);
  save(table, folder / "table");
  std::filesystem::create_symlink(folder / "table", folder / "link");
  EXPECT_FALSE(load(folder / "link"));
  const auto saved = run(save_block_table(runtime().context(), table, folder / "none/table", "target"));
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().kind(), ErrorKind::not_found);
  EXPECT_EQ(run(save_block_table(runtime().context(), table, folder / "long", std::string(5000, 'x')))
                .error()
                .kind(),
            ErrorKind::too_large);
}

TEST(TableFile, LessMemoryKnowsLessAndNothingWrong) {
  const test::TemporaryFolder folder;
  BlockTable table(shape, 77, true);
  for (std::uint64_t block = 0; block < table.blocks(); ++block) table.set(block, {block + 1, 2});
  table.flush_done(table.flush_begins());
  save(table, folder / "table");
  TableShape small = shape;
  small.bytes_max = 8192;
  const auto loaded = must(load(folder / "table", {"target", small}));
  for (std::uint64_t block = 0; block < table.blocks(); ++block) {
    const BlockHash known = loaded->known(block);
    ASSERT_TRUE(!known.is_known() || known == table.known(block)) << block;
  }
}

}  // namespace
}  // namespace diskferry
