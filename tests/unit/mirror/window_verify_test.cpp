// The window reads its target back: what is right, what is wrong, and a client that writes meanwhile.
#include "diskferry/task_group.hpp"
#include "tests/support/pattern.hpp"
#include "tests/unit/mirror/window_fixture.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::DiskOptions;
using test::must;
using test::pattern;
using test::run;
using test::WindowUnderTest;

constexpr std::uint64_t block = 4096;

std::uint64_t verified(WindowUnderTest& under) {
  std::atomic<std::uint64_t> bytes = 0;
  must(run(under.window->verify(bytes)));
  return bytes;
}
/// What the storage does by itself.
void spoil(WindowUnderTest& under, std::uint64_t offset) {
  const std::array<std::byte, 1> bytes{std::byte{0x77}};
  must(run(under.target->write(offset, bytes, {})));
}

TEST(WindowVerify, FindsAllRight) {
  WindowUnderTest under({.size_bytes = mib + 512});
  must(under.write(64 * kib, pattern(64 * kib, 64 * kib)));
  must(under.write(mib, pattern(mib, 512)));
  must(under.flush());
  EXPECT_EQ(verified(under), mib + block);
}

TEST(WindowVerify, LeavesOutWhatNobodyKnows) {
  WindowUnderTest under({.starts_zeroed = false});
  must(under.write(0, pattern(0, 8 * block)));
  must(under.flush());
  EXPECT_EQ(verified(under), 8 * block);
}

struct Spoilt {
  std::string name;
  std::uint64_t offset;
};
void PrintTo(const Spoilt& row, std::ostream* out) {
  *out << row.name;
}
class WindowVerifyFinds : public testing::TestWithParam<Spoilt> {};
TEST_P(WindowVerifyFinds, TheBlock) {
  WindowUnderTest under({.size_bytes = mib + 512});
  must(under.write(64 * kib, pattern(64 * kib, 64 * kib)));
  must(under.write(mib, pattern(mib, 512)));
  must(under.flush());
  spoil(under, GetParam().offset);
  std::atomic<std::uint64_t> bytes = 0;
  const auto result = run(under.window->verify(bytes));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::mismatch);
  ASSERT_TRUE(result.error().position());
  EXPECT_EQ(result.error().position()->offset, GetParam().offset / block * block);
  // Nothing goes on from here: the flush that the hypervisor waits for fails.
  EXPECT_FALSE(under.flush());
  EXPECT_TRUE(under.window->failure());
}
INSTANTIATE_TEST_SUITE_P(Rows, WindowVerifyFinds,
                         testing::Values(Spoilt{"Data", 70 * kib}, Spoilt{"Zeros", 4 * kib},
                                         Spoilt{"First", 0}, Spoilt{"LastPart", mib + 511}),
                         [](const auto& row) { return row.param.name; });

TEST(WindowVerify, AWriterIsNoMistake) {
  WindowUnderTest under({.size_bytes = 4 * mib});
  must(under.write(0, pattern(0, 4 * mib)));
  must(under.flush());
  std::atomic<bool> ends = false;
  std::thread writer([&] {
    for (std::uint64_t i = 0; !ends; ++i) must(under.write(i * 7 % 1024 * block, pattern(0, block, i)));
  });
  for (int i = 0; i < 20; ++i) EXPECT_GT(verified(under), 0u);
  ends = true;
  writer.join();
  must(under.flush());
  EXPECT_EQ(verified(under), 4 * mib);
}

TEST(WindowVerify, EndsWhenTheWindowStops) {
  WindowUnderTest under({});
  must(under.write(0, pattern(0, block)));
  must(run(under.window->stop()));
  std::atomic<std::uint64_t> bytes = 0;
  const auto result = run(under.window->verify(bytes));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::gone);
}

}  // namespace
}  // namespace diskferry
