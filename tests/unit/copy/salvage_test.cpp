// A source with places that cannot be read: which bytes are given up, and which are not.
#include "gateway/copy/salvage.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

constexpr std::uint64_t disk_bytes = 64 * mib;

class SalvageTest : public testing::Test {
 protected:
  SalvageTest() {
    std::vector<std::byte> bytes(mib);
    test::fill_pattern(bytes, 0);
    must(run(inner_->write(0, bytes, {})));
  }
  ~SalvageTest() override { must(run(source_->close())); }

  void make_bad(Range range, ErrorKind kind = ErrorKind::io) {
    faults_->add({.verb = FaultVerb::read, .error = kind, .range = range});
  }
  Result<void> read(Range range) {
    bytes_.assign(range.length, std::byte{0xAA});
    const Error first(ErrorKind::io, "read", "the disk");
    return run(salvage_.read(*source_, range, bytes_, first));
  }
  /// What was read of `range` is what is there, and zeros at `lost`.
  void check(Range range, const std::vector<Range>& lost) {
    std::vector<std::byte> expected(mib);
    test::fill_pattern(expected, 0);
    for (const Range part : lost)
      std::fill_n(expected.begin() + static_cast<long>(part.offset), part.length, std::byte{0});
    EXPECT_TRUE(std::ranges::equal(bytes_, std::span(expected).subspan(range.offset, range.length)));
  }

  std::shared_ptr<BlockDevice> inner_ = checked(make_memory_device({.size_bytes = disk_bytes}));
  std::shared_ptr<FaultControl> faults_ = std::make_shared<FaultControl>(FaultPlan{});
  DevicePtr source_ = checked(make_fault_device(inner_, faults_, test::runtime().context().clock));
  Salvage salvage_;
  std::vector<std::byte> bytes_;
};

TEST_F(SalvageTest, GivesUpBadSectorsAndNothingElse) {
  salvage_.set_skips(true);
  make_bad({5000, 1});
  make_bad({9 * 512, 2 * 512});
  make_bad({512 * kib - 512, 512});
  must(read({0, 512 * kib}));
  const std::vector<Range> lost{{9 * 512, 1024}, {512 * kib - 512, 512}};
  EXPECT_EQ(salvage_.lost(), lost);
  EXPECT_EQ(salvage_.lost_bytes(), 1536u);
  check({0, 512 * kib}, lost);
}

TEST_F(SalvageTest, NamesTheFirstPlaceWhereNothingIsSkipped) {
  make_bad({100 * 512 + 7, 1});
  make_bad({300 * 512, 512});
  const auto failed = read({0, 512 * kib});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind(), ErrorKind::io);
  EXPECT_EQ(failed.error().position()->offset, 100u * 512);
  EXPECT_EQ(failed.error().position()->length, 512u);
  EXPECT_TRUE(salvage_.lost().empty());
  ASSERT_TRUE(salvage_.failure());
  salvage_.clear_failure();
  EXPECT_FALSE(salvage_.failure());
}

TEST_F(SalvageTest, APassingFailureLosesNothing) {
  must(read({0, 64 * kib}));
  check({0, 64 * kib}, {});
  EXPECT_TRUE(salvage_.lost().empty());
}

TEST_F(SalvageTest, ASourceThatIsGoneIsNotSkipped) {
  salvage_.set_skips(true);
  make_bad({4096, 512}, ErrorKind::gone);
  EXPECT_EQ(read({0, 64 * kib}).error().kind(), ErrorKind::gone);
  EXPECT_TRUE(salvage_.lost().empty());
  EXPECT_FALSE(salvage_.failure());
}

TEST_F(SalvageTest, ASourceThatIsDyingIsNotSkippedWithoutEnd) {
  salvage_.set_skips(true);
  make_bad({0, disk_bytes});
  std::uint64_t at = 0;
  Result<void> done;
  for (; done && at < disk_bytes; at += 512 * kib) done = read({at, 512 * kib});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().kind(), ErrorKind::io);
  EXPECT_FALSE(done.error().remedy().empty());
  EXPECT_EQ(at, Salvage::lost_bytes_max + 512 * kib);
}

TEST_F(SalvageTest, LooksAgainAtWhatWasSkipped) {
  salvage_.set_skips(true);
  make_bad({4096, 2048});
  must(read({0, 64 * kib}));
  const auto changes = salvage_.changes();
  EXPECT_TRUE(must(run(salvage_.look_again(*source_))).empty());
  EXPECT_EQ(salvage_.changes(), changes);
  faults_->clear();
  make_bad({4096, 512});
  EXPECT_EQ(must(run(salvage_.look_again(*source_))).size(), 3u);
  EXPECT_EQ(salvage_.lost(), (std::vector<Range>{{4096, 512}}));
  EXPECT_GT(salvage_.changes(), changes);
  // What is read again as a whole is not listed any more.
  faults_->clear();
  must(read({0, 64 * kib}));
  EXPECT_TRUE(salvage_.lost().empty());
}

TEST_F(SalvageTest, ForgetsAndRemembers) {
  Salvage again({{0, 512}, {4096, 512}});
  EXPECT_EQ(again.lost_bytes(), 1024u);
  EXPECT_EQ(again.forget(), (std::vector<Range>{{0, 512}, {4096, 512}}));
  EXPECT_EQ(again.lost_bytes(), 0u);
  EXPECT_TRUE(again.forget().empty());
}

TEST(RangeSetRemove, CutsPiecesApart) {
  RangeSet set;
  set.add({0, 100});
  set.add({200, 100});
  set.remove({10, 10});
  set.remove({90, 120});
  set.remove({150, 10});
  EXPECT_EQ(set.inside({0, 400}), (std::vector<Range>{{0, 10}, {20, 70}, {210, 90}}));
  EXPECT_EQ(set.bytes(), 170u);
  set.remove({0, 400});
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(set.bytes(), 0u);
}

}  // namespace
}  // namespace diskferry
