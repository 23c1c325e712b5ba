// The fixture of the suite: opens the subject and closes it at the end.
#pragma once

#include "diskferry/units.hpp"
#include "tests/contract/model.hpp"
#include "tests/contract/subject.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <gtest/gtest.h>

namespace diskferry::test {

class DeviceContract : public testing::TestWithParam<Subject> {
 protected:
  BlockDevice& open(std::uint64_t size_bytes) {
    close();
    opened_ = GetParam().open(align_up(size_bytes, GetParam().size_unit));
    EXPECT_EQ(opened_.device->size_bytes(), align_up(size_bytes, GetParam().size_unit));
    return *opened_.device;
  }
  void close() {
    if (opened_.device) must(run(opened_.device->close()));
    opened_ = {};
  }
  void TearDown() override { close(); }

  BlockDevice& device() { return *opened_.device; }
  const Opened& opened() const { return opened_; }
  /// `wanted` in whole blocks of the device, and inside it.
  Range whole(Range wanted) {
    const std::uint64_t block = device().info().block_bytes;
    const std::uint64_t size = device().size_bytes();
    const std::uint64_t from = std::min(align_down(wanted.offset, block), align_down(size, block));
    const std::uint64_t to = std::min(std::max(align_up(wanted.end(), block), from), size);
    return {from, to - from};
  }
  std::vector<std::byte> read(Range range) {
    std::vector<std::byte> bytes(range.length, std::byte{0xee});
    must(run(device().read(range.offset, bytes)));
    return bytes;
  }
  int times(int wanted) const { return std::max(1, wanted / static_cast<int>(GetParam().slowness)); }

 private:
  Opened opened_;
};

inline std::string name_of(const testing::TestParamInfo<Subject>& info) {
  return info.param.name;
}

}  // namespace diskferry::test
