#include "gateway/copy/ledger.hpp"

#include "diskferry/units.hpp"
#include "tests/support/test_runtime.hpp"

#include <filesystem>
#include <fstream>
#include <sys/stat.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

LedgerHeader header() {
  return {
      .source = {{"base.raw",
                  {.device = 1, .inode = 2, .size_bytes = 3, .modified_ns = -4, .header_hash = UINT64_MAX}}},
      .source_bytes = gib,
      .target = "t.raw",
      .target_format = "raw",
      .target_identity = "file|7|8",
      .target_bytes = gib,
      .options = "compression=none"};
}
std::vector<Piece> pieces(std::uint64_t first, std::size_t count) {
  std::vector<Piece> made;
  for (std::size_t i = 0; i < count; ++i)
    made.push_back(
        {{(first + i) * mib, mib}, i % 2 == 0 ? PieceState::verified : PieceState::zeroed, {first + i, i}});
  return made;
}
std::span<const std::byte> bytes_of(const std::string& text) {
  return as_bytes(text);
}

TEST(LedgerFormat, GivesBackWhatWasWritten) {
  const std::string text =
      encode_header(header()) + encode_entries(pieces(0, 3)) + encode_entries(pieces(3, 2));
  LedgerReader reader(bytes_of(text));
  EXPECT_EQ(must(reader.header()), header());
  EXPECT_EQ(reader.next(), pieces(0, 3));
  EXPECT_EQ(reader.next(), pieces(3, 2));
  EXPECT_TRUE(reader.next().empty());
  EXPECT_EQ(reader.valid_bytes(), text.size());
}

TEST(LedgerFormat, TornAtAnyByteKeepsWholeRecordsOnly) {
  const std::string front = encode_header(header());
  const std::string first = encode_entries(pieces(0, 3));
  const std::string text = front + first + encode_entries(pieces(3, 2));
  for (std::size_t length = 0; length <= text.size(); ++length) {
    const std::string torn = text.substr(0, length);
    LedgerReader reader(bytes_of(torn));
    const auto found = reader.header();
    ASSERT_EQ(found.has_value(), length >= front.size()) << length;
    if (!found) continue;
    std::size_t count = 0;
    for (auto some = reader.next(); !some.empty(); some = reader.next()) count += some.size();
    const std::size_t expected = length == text.size() ? 5 : length >= front.size() + first.size() ? 3 : 0;
    EXPECT_EQ(count, expected) << length;
  }
}

TEST(LedgerFormat, AChangedByteEndsItThere) {
  const std::string front = encode_header(header());
  const std::string text = front + encode_entries(pieces(0, 3)) + encode_entries(pieces(3, 2));
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 0x40);
    LedgerReader reader(bytes_of(changed));
    const auto found = reader.header();
    ASSERT_EQ(found.has_value(), at >= front.size()) << at;
    std::vector<Piece> all;
    for (auto some = reader.next(); found && !some.empty(); some = reader.next())
      all.insert(all.end(), some.begin(), some.end());
    ASSERT_LE(all.size(), 3u) << at;
    auto expected = pieces(0, 3);
    expected.resize(all.size());
    EXPECT_EQ(all, expected) << at;
  }
}

TEST(LedgerDifference, NamesWhatChanged) {
  EXPECT_EQ(difference(header(), header()), "");
  auto changed = header();
  changed.source[0].identity.modified_ns = 5;
  EXPECT_NE(difference(header(), changed).find("base.raw has changed"), std::string::npos);
  changed = header();
  changed.source.clear();
  EXPECT_NE(difference(header(), changed).find("layers"), std::string::npos);
  changed = header();
  changed.target_identity = "file|7|9";
  EXPECT_NE(difference(header(), changed).find("not the file"), std::string::npos);
  changed = header();
  changed.options = "compression=zlib";
  EXPECT_NE(difference(header(), changed).find("options"), std::string::npos);
  changed = header();
  changed.target_bytes = 1;
  EXPECT_NE(difference(header(), changed).find("size"), std::string::npos);
}

Task<Result<void>> write_then_close(std::string path, std::size_t count) {
  DISKFERRY_CO_TRY(auto ledger, co_await Ledger::create(test::runtime().context(), path, header()));
  DISKFERRY_CO_CHECK(co_await ledger->append(pieces(0, count)));
  auto second = co_await Ledger::load(test::runtime().context(), path);
  EXPECT_FALSE(second);
  if (!second) EXPECT_EQ(second.error().kind(), ErrorKind::in_use);
  co_return Result<void>{};
}

TEST(Ledger, SurvivesATornTailAndGoesOn) {
  test::TemporaryFolder folder;
  const std::string path = folder / "t.diskferry-ledger";
  must(run(write_then_close(path, 10)));
  {
    std::ofstream file(path, std::ios::app | std::ios::binary);
    file << encode_entries(pieces(10, 4)).substr(0, 50);
  }
  {
    auto loaded = must(run(Ledger::load(test::runtime().context(), path)));
    EXPECT_EQ(loaded.done.bytes(), 10 * mib);
    must(run(loaded.ledger->append(pieces(10, 4))));
  }
  auto again = must(run(Ledger::load(test::runtime().context(), path)));
  EXPECT_EQ(again.done.bytes(), 14 * mib);
  EXPECT_EQ(again.done.pieces(), 1u);
  must(run(again.ledger->remove()));
  struct stat status{};
  EXPECT_NE(::stat(path.c_str(), &status), 0);
}

TEST(RangeSet, MergesAndSubtracts) {
  RangeSet set;
  set.add({10, 10});
  set.add({30, 10});
  set.add({20, 10});
  EXPECT_EQ(set.pieces(), 1u);
  EXPECT_EQ(set.bytes(), 30u);
  set.add({50, 5});
  EXPECT_EQ(set.outside({0, 60}), (std::vector<Range>{{0, 10}, {40, 10}, {55, 5}}));
  EXPECT_EQ(set.inside({15, 37}), (std::vector<Range>{{15, 25}, {50, 2}}));
  set.add({0, 100});
  EXPECT_EQ(set.pieces(), 1u);
  EXPECT_EQ(set.bytes(), 100u);
}

TEST(Ledger, KeepsRoomForRecordsOnAFullFileSystem) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "ledger";
  const auto allocated = [&] {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  auto ledger = must(run(Ledger::create(test::runtime().context(), path, header())));
  EXPECT_GE(allocated(), 256 * kib);
  for (std::uint64_t i = 0; i < 20; ++i) must(run(ledger->append(pieces(i * 1000, 1000))));
  EXPECT_GE(allocated(), std::filesystem::file_size(path) + 128 * kib);
  ledger.reset();
  auto loaded = must(run(Ledger::load(test::runtime().context(), path)));
  EXPECT_GE(allocated(), std::filesystem::file_size(path) + 256 * kib);
}

}  // namespace
}  // namespace diskferry
