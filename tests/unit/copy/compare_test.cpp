#include "gateway/copy/compare.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

struct Row {
  std::string name;
  std::uint64_t a_bytes;
  std::uint64_t b_bytes;
  std::vector<std::uint64_t> changed;  ///< bytes of b that differ
  bool strict;
  std::optional<std::uint64_t> first;
};
class Compare : public testing::TestWithParam<Row> {};

TEST_P(Compare, FindsTheLowestDifference) {
  const Row& row = GetParam();
  auto a = checked(make_memory_device({.size_bytes = row.a_bytes}));
  auto b = checked(make_memory_device({.size_bytes = row.b_bytes, .can_report_extents = false}));
  const auto data = test::pattern(0, 300000);
  for (auto* device : {a.get(), b.get()}) {
    if (device->size_bytes() >= data.size()) must(run(device->write(0, data, {})));
  }
  for (const std::uint64_t at : row.changed)
    must(run(b->write(at, std::vector<std::byte>(1, std::byte{0x5A}), {})));
  const auto result = must(run(compare(test::runtime().context(), *a, *b,
                                       {.request_bytes = 64 * kib, .strict_size = row.strict}, nullptr)));
  EXPECT_EQ(result.first_difference, row.first);
  EXPECT_EQ(result.is_same, !row.first);
  must(run(a->close()));
  must(run(b->close()));
}
INSTANTIATE_TEST_SUITE_P(
    Disks, Compare,
    testing::Values(Row{"same", 2 * mib, 2 * mib, {}, true, {}}, Row{"empty", 0, 0, {}, true, {}},
                    Row{"two_changes", 2 * mib, 2 * mib, {1900000, 700001}, false, 700001},
                    Row{"longer_with_zeros", 2 * mib, 2 * mib + 77, {}, false, {}},
                    Row{"longer_is_strictly_different", 2 * mib, 2 * mib + 77, {}, true, 2 * mib},
                    Row{"longer_with_data", 2 * mib, 2 * mib + 77, {2 * mib + 70}, false, 2 * mib + 70}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace diskferry
