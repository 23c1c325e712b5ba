// Pending blocks without tasks: what a write does to what waits, and which requests come out.
#include "gateway/mirror/pending_blocks.hpp"

#include "diskferry/units.hpp"

#include <cstring>

#include <gtest/gtest.h>

namespace diskferry {
namespace {

constexpr std::uint32_t block = 4096;
constexpr std::uint64_t much = 64 * mib;

/// A disk of 4 MiB and a bit, in memory that is written where flights say.
struct Disk {
  explicit Disk(bool starts_zeroed = true, unsigned request_blocks = 64)
      : size_bytes(4 * mib + 100),
        table({.size_bytes = size_bytes, .block_bytes = block}, 3, starts_zeroed),
        pending(table, {.size_bytes = size_bytes, .block_bytes = block, .request_blocks = request_blocks}),
        content(size_bytes) {}

  /// Each block is filled with its letter; '0' are zeros. Returns how many were taken in.
  unsigned write(std::uint64_t first, const std::string& letters, std::uint64_t room = much) {
    std::vector<std::byte> bytes;
    for (const char letter : letters)
      bytes.resize(bytes.size() + block, letter == '0' ? std::byte{0} : static_cast<std::byte>(letter));
    Arrival arrival;
    arrival.first = first;
    arrival.count = static_cast<unsigned>(letters.size());
    arrival.from = bytes.data();
    for (unsigned i = 0; i < arrival.count; ++i)
      arrival.hash[i] = table.hash(std::span(bytes).subspan(std::size_t{i} * block, length(first + i)));
    if (pending.choose(arrival, room) == 0) return 0;
    pending.copy(arrival);
    pending.publish(arrival, {});
    return arrival.count;
  }
  bool part(Range range, char letter) {
    const std::vector<std::byte> bytes(range.length, static_cast<std::byte>(letter));
    return pending.put_part(range, letter == '0' ? nullptr : bytes.data(), much, {});
  }
  std::size_t length(std::uint64_t number) const {
    return std::min<std::size_t>(block, size_bytes - number * block);
  }

  std::optional<Flight> take(bool may_gather = true) {
    Flight flight;
    if (!pending.take(flight, may_gather)) return std::nullopt;
    return flight;
  }
  void land(const Flight& flight, bool ok = true) {
    if (ok && flight.is_zero) std::memset(content.data() + flight.range.offset, 0, flight.range.length);
    for (std::uint64_t i = 0; ok && !flight.is_zero && i < flight.count; ++i) {
      const std::uint64_t at = flight.range.offset + i * block;
      const std::size_t bytes = std::min<std::size_t>(block, flight.range.end() - at);
      if (flight.content[i] != nullptr) {
        std::memcpy(content.data() + at, flight.content[i], bytes);
      } else {
        std::memset(content.data() + at, 0, bytes);
      }
    }
    pending.landed(flight, ok);
  }
  /// Sends all, and tells the requests: "first+count", zeros in brackets.
  std::string send() {
    std::string requests;
    while (const auto flight = take()) {
      const std::string text = std::to_string(flight->first) + "+" + std::to_string(flight->count);
      requests += (requests.empty() ? "" : " ") + (flight->is_zero ? "[" + text + "]" : text);
      land(*flight);
    }
    return requests;
  }
  /// A letter for each block.
  std::string text(std::uint64_t first, unsigned count) const {
    std::string letters;
    for (unsigned i = 0; i < count; ++i) {
      const auto letter = static_cast<char>(content[(first + i) * block]);
      letters += letter == 0 ? '0' : letter;
    }
    return letters;
  }

  std::uint64_t size_bytes;
  BlockTable table;
  PendingBlocks pending;
  std::vector<std::byte> content;
};

struct Case {
  std::string name;
  std::vector<std::pair<std::uint64_t, std::string>> writes;
  std::string requests;
  std::uint64_t unchanged_blocks = 0;
  std::uint64_t superseded_blocks = 0;
};
class Written : public testing::TestWithParam<Case> {};
TEST_P(Written, BecomesTheseRequests) {
  Disk disk;
  for (const auto& [first, letters] : GetParam().writes) disk.write(first, letters);
  EXPECT_EQ(disk.send(), GetParam().requests);
  const PendingCounters& counters = disk.pending.counters();
  EXPECT_EQ(counters.unchanged_bytes, GetParam().unchanged_blocks * block);
  EXPECT_EQ(counters.superseded_bytes, GetParam().superseded_blocks * block);
  EXPECT_EQ(counters.data_bytes + counters.zero_bytes, 0u);
  EXPECT_EQ(disk.pending.used_bytes(), 0u);
  EXPECT_TRUE(disk.pending.is_empty());
}
INSTANTIATE_TEST_SUITE_P(
    Cases, Written,
    testing::Values(Case{"one", {{5, "a"}}, "5+1"},
                    Case{"neighbours_written_apart", {{6, "a"}, {5, "b"}, {7, "c"}}, "5+3"},
                    Case{"apart", {{5, "a"}, {9, "b"}}, "5+1 9+1"},
                    Case{"zeros_on_zeros", {{5, "000"}}, "", 3},
                    Case{"the_same_twice", {{5, "ab"}, {5, "ab"}}, "5+2", 2},
                    Case{"one_of_two_again", {{5, "ab"}, {5, "ac"}}, "5+2", 1, 1},
                    Case{"back_to_what_was_there", {{5, "ab"}, {6, "0"}}, "5+1", 1, 1},
                    Case{"all_of_it_back", {{5, "ab"}, {5, "00"}}, "", 2, 2},
                    Case{"order_of_groups", {{70, "a"}, {5, "b"}}, "70+1 5+1"},
                    Case{"across_groups", {{60, "aaaa"}, {64, "aa"}}, "60+4 64+2"},
                    Case{"last_short_block", {{1023, "a"}}, "1023+1"}),
    [](const auto& info) { return info.param.name; });

TEST(PendingBlocks, ABlockInFlightHoldsUpOnlyItself) {
  Disk disk;
  disk.write(5, "ab");
  const auto first = disk.take();
  disk.write(6, "c");
  disk.write(7, "d");
  const auto second = disk.take();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->first, 7u);
  EXPECT_FALSE(disk.take()) << "6 waits for its older version";
  disk.land(*second);
  disk.land(*first);
  EXPECT_EQ(disk.text(5, 3), "abd");
  EXPECT_EQ(disk.send(), "6+1");
  EXPECT_EQ(disk.text(5, 3), "acd");
  EXPECT_EQ(disk.pending.counters().resent_bytes, block);
}

TEST(PendingBlocks, IsComparedWithWhatIsFlying) {
  Disk disk;
  disk.write(5, "a");
  const auto flight = disk.take();
  disk.write(5, "b");
  disk.write(5, "a");  // what is on its way: the queued one is not needed any more
  EXPECT_EQ(disk.pending.counters().superseded_bytes, block);
  disk.land(*flight);
  EXPECT_EQ(disk.send(), "");
  EXPECT_EQ(disk.text(5, 1), "a");
}

TEST(PendingBlocks, AFailedBlockIsUnknown) {
  Disk disk;
  disk.write(5, "a");
  disk.land(*disk.take(), false);
  EXPECT_FALSE(disk.table.known(5).is_known());
  disk.write(5, "0");
  EXPECT_EQ(disk.send(), "[5+1]") << "not zero any more, for all we know";
}

TEST(PendingBlocks, FewZerosBetweenDataGoAsData) {
  Disk disk(false);
  disk.write(8, "a00b00000c0");
  EXPECT_EQ(disk.send(), "8+4 [12+5] 17+1 [18+1]");
  EXPECT_EQ(disk.text(8, 11), "a00b00000c0");
  EXPECT_TRUE(disk.table.known(9).is_zero());
  EXPECT_EQ(disk.pending.counters().sent_bytes, 5 * block);
  EXPECT_EQ(disk.pending.counters().sent_zero_bytes, 6 * block);
}

TEST(PendingBlocks, WithoutABufferOnlyWhatLiesSideBySideIsJoined) {
  Disk disk;
  disk.write(6, "b");
  disk.write(5, "a");
  const auto flight = disk.take(false);
  EXPECT_EQ(flight->count, 1u);
  disk.land(*flight);
  EXPECT_EQ(disk.send(), "6+1");
  std::string many(64, 'x');
  disk.write(64, many);
  const auto whole = disk.take(false);
  EXPECT_EQ(whole->count, 64u) << "a whole group is stored side by side";
  EXPECT_FALSE(whole->is_gathered);
  disk.land(*whole);
}

TEST(PendingBlocks, ZerosOfManyGroupsAreOneRequest) {
  Disk disk(false);
  for (std::uint64_t group = 0; group < 16; ++group)
    EXPECT_TRUE(disk.pending.put_zeros(group * 64, 64, much, {}));
  EXPECT_TRUE(disk.pending.put_zeros(1024, 1, much, {}));
  EXPECT_LT(disk.pending.used_bytes(), 16 * kib);
  EXPECT_EQ(disk.send(), "[0+1025]");
  EXPECT_TRUE(disk.pending.are_plain_zero(0, 1025));
}

TEST(PendingBlocks, ZerosTakeThePlaceOfDataAndDataOfZeros) {
  Disk disk(false);
  disk.write(5, "abc");
  EXPECT_TRUE(disk.pending.put_zeros(6, 1, much, {}));
  EXPECT_TRUE(disk.pending.put_zeros(8, 2, much, {}));
  disk.write(9, "d");
  EXPECT_EQ(disk.send(), "5+5") << "single zeros between data";
  EXPECT_EQ(disk.text(5, 5), "a0c0d");
}

TEST(PendingBlocks, RoomIsForWhatHasChangedOnly) {
  Disk disk;
  EXPECT_EQ(disk.write(0, "ab", 1), 1u) << "a block gets through when nothing is pending";
  EXPECT_EQ(disk.write(1, "bc", 1), 0u);
  EXPECT_EQ(disk.write(0, "a0", 0), 2u) << "what changes nothing needs no room";
  EXPECT_EQ(disk.write(1, "bcd", 2 * block), 2u);
  EXPECT_FALSE(disk.pending.put_part({40 * block, 10}, nullptr, 0, {}) &&
               disk.pending.put_part({40 * block, 10}, disk.content.data(), 0, {}));
}

// --- parts ------------------------------------------------------------------------------------------------

TEST(PendingBlocks, APartMakesTheBlockUnknown) {
  Disk disk;
  EXPECT_TRUE(disk.part({5 * block + 512, 1024}, 'p'));
  const auto flight = disk.take();
  EXPECT_EQ(flight->range, (Range{5 * block + 512, 1024}));
  disk.land(*flight);
  EXPECT_FALSE(disk.table.known(5).is_known());
  disk.write(5, "0");
  EXPECT_EQ(disk.send(), "[5+1]");
}

TEST(PendingBlocks, PartsThatTouchAreJoinedUntilTheyAreABlock) {
  Disk disk;
  EXPECT_TRUE(disk.part({5 * block + 512, 512}, 'p'));
  EXPECT_TRUE(disk.part({5 * block + 1024, 512}, 'p'));
  EXPECT_FALSE(disk.part({5 * block + 2048, 512}, 'p')) << "does not touch: has to wait";
  EXPECT_TRUE(disk.part({5 * block, 768}, 'p'));
  EXPECT_TRUE(disk.part({5 * block + 1500, 4096 - 1500}, 'p'));
  disk.write(5, "p");
  EXPECT_EQ(disk.pending.counters().unchanged_bytes, block) << "known again when it is whole";
  EXPECT_EQ(disk.send(), "5+1");
  EXPECT_EQ(disk.text(5, 1), "p");
}

TEST(PendingBlocks, APartOfAQueuedBlockGoesIntoIt) {
  Disk disk;
  disk.write(5, "a");
  EXPECT_TRUE(disk.part({5 * block + 1, 2}, 'z'));
  disk.write(5, "a");
  EXPECT_EQ(disk.pending.counters().unchanged_bytes, 0u) << "it was not the same any more";
  EXPECT_TRUE(disk.part({5 * block, block / 2}, '0'));
  EXPECT_TRUE(disk.part({5 * block + block / 2, block / 2}, '0'));
  EXPECT_EQ(disk.send(), "") << "and now it is what is there";
}

TEST(PendingBlocks, APartOfQueuedZerosKeepsTheRestZero) {
  Disk disk(false);
  EXPECT_TRUE(disk.pending.put_zeros(5, 1, much, {}));
  EXPECT_TRUE(disk.part({5 * block + 100, 1}, '0'));
  EXPECT_TRUE(disk.part({5 * block + 100, 1}, 'z'));
  std::memset(disk.content.data() + 5 * block, 0xEE, block);
  EXPECT_EQ(disk.send(), "5+1");
  EXPECT_EQ(disk.content[5 * block + 99], std::byte{0});
  EXPECT_EQ(disk.content[5 * block + 100], std::byte{'z'});
  EXPECT_EQ(disk.content[6 * block - 1], std::byte{0});
}

// --- barriers and reading ---------------------------------------------------------------------------------

TEST(PendingBlocks, ABarrierWaitsForWhatWasThereAndNothingElse) {
  Disk disk;
  disk.write(5, "ab");
  const auto flying = disk.take();
  disk.write(6, "c");
  disk.write(200, "d");
  disk.pending.begin_barrier();
  EXPECT_EQ(disk.pending.old_left(), 4u);
  disk.write(300, "e");
  disk.write(200, "f");  // takes the place of an old one
  disk.write(5, "x");    // behind an old one that is flying
  EXPECT_EQ(disk.pending.old_left(), 4u);
  disk.land(*flying);
  EXPECT_EQ(disk.pending.old_left(), 2u);
  disk.write(6, "b");  // back to what is there: never sent
  EXPECT_EQ(disk.pending.old_left(), 1u);
  disk.send();
  EXPECT_EQ(disk.pending.old_left(), 0u);
  disk.pending.begin_barrier();
  EXPECT_EQ(disk.pending.old_left(), 0u);
}

TEST(PendingBlocks, WhatKeepsComingDoesNotPassWhatWaits) {
  Disk disk(true, 1);
  disk.write(0, "a");
  disk.write(63, "z");
  disk.write(100, "y");
  disk.pending.begin_barrier();
  for (char letter = 'b'; disk.pending.old_left() != 0; ++letter) {
    ASSERT_LT(letter, 'h');
    disk.land(*disk.take());
    disk.write(0, std::string(1, letter));
  }
}

TEST(PendingBlocks, ReadsTheNewestVersion) {
  Disk disk;
  std::array<std::byte, 2> seen{};
  using Lookup = PendingBlocks::Lookup;
  EXPECT_EQ(disk.pending.read({5 * block + 7, 2}, seen.data()), Lookup::at_target);
  disk.write(5, "a");
  const auto flight = disk.take();
  EXPECT_EQ(disk.pending.read({5 * block + 7, 2}, seen.data()), Lookup::copied);
  EXPECT_EQ(seen[1], std::byte{'a'});
  disk.write(5, "b");
  EXPECT_EQ(disk.pending.read({5 * block + 7, 2}, seen.data()), Lookup::copied);
  EXPECT_EQ(seen[1], std::byte{'b'});
  EXPECT_TRUE(disk.part({9 * block, 100}, 'p'));
  EXPECT_EQ(disk.pending.read({9 * block, 2}, seen.data()), Lookup::wait);
  disk.land(*flight);
  disk.pending.drop_queued();
  EXPECT_TRUE(disk.pending.is_empty());
  EXPECT_EQ(disk.pending.used_bytes(), 0u);
}

TEST(PayloadStore, HoldsLittleMoreThanIsUsed) {
  PayloadStore store(4096);
  std::vector<PayloadStore::Slot> slots;
  for (int i = 0; i < 10000; ++i) {
    if (i % 64 == 0) store.prefer_whole_slab();
    slots.push_back(store.take());
  }
  // One of each slab stays: the worst that can be done to it.
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (i % 64 != 0) store.give_back(slots[i]);
  }
  std::vector<PayloadStore::Slot> more;
  for (int i = 0; i < 9000; ++i) {
    if (i % 64 == 0) store.prefer_whole_slab();
    more.push_back(store.take());
  }
  EXPECT_LE(store.held_bytes(), 2 * store.used_bytes() + 2 * mib) << "what is free in slabs is used first";
  for (std::size_t i = 0; i < slots.size(); i += 64) store.give_back(slots[i]);
  for (const auto slot : more) store.give_back(slot);
  EXPECT_EQ(store.used(), 0u);
  EXPECT_LE(store.held_bytes(), (PayloadStore::idle_slabs_max + 1) * 64 * 4096);
}

}  // namespace
}  // namespace diskferry
