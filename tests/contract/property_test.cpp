// Random calls, one after another, against a model in memory. The seed is printed with a failure and taken
// from DISKFERRY_SEED.
#include "tests/contract/contract_test.hpp"

#include <cstdlib>
#include <random>

namespace diskferry::test {
namespace {

class Walk {
 public:
  Walk(BlockDevice& device, std::uint64_t seed)
      : device_(device), model_(device.size_bytes()), random_(seed) {}

  void start() {
    const auto data = pattern(0, device_.size_bytes(), 1);
    must(run(device_.write(0, data, {})));
    model_.write(0, data);
  }

  void step() {
    const Range range = some_range();
    switch (random_() % 9) {
      case 0:
      case 1:
        return write(range, {.fua = random_() % 4 == 0});
      case 2:
        return try_write(range);
      case 3:
        return zero(range);
      case 4:
        must(run(device_.discard(range)));
        return model_.forget(range);
      case 5:
        return must(run(device_.flush()));
      case 6:
        return extents(range);
      default:
        return read(range);
    }
  }
  void read_all() { read({0, device_.size_bytes()}); }

 private:
  Range some_range() {
    const std::uint64_t block = device_.info().block_bytes;
    const std::uint64_t size = device_.size_bytes();
    const std::uint64_t offset = align_down(random_() % size, block);
    // Mostly small; now and then to the very end.
    const std::uint64_t wanted =
        random_() % 8 == 0 ? size : 1 + random_() % (random_() % 2 == 0 ? 700 : 70000);
    const std::uint64_t end = std::min(align_up(offset + wanted, block), size);
    return {offset, end - offset};
  }
  std::vector<std::byte> some_data(Range range) {
    if (random_() % 5 == 0) return std::vector<std::byte>(range.length);
    return pattern(range.offset, range.length, random_() % 1000);
  }
  void write(Range range, WriteFlags flags) {
    const auto data = some_data(range);
    must(run(device_.write(range.offset, data, flags)));
    model_.write(range.offset, data);
  }
  void try_write(Range range) {
    const auto data = some_data(range);
    const auto done = device_.try_write(range.offset, data);
    if (!done) return;
    must(*done);
    model_.write(range.offset, data);
  }
  void zero(Range range) {
    const ZeroFlags flags{.may_unmap = random_() % 2 == 0, .fast_only = random_() % 3 == 0};
    const auto done = run(device_.write_zeroes(range, flags));
    if (done) return model_.zero(range);
    EXPECT_TRUE(flags.fast_only && done.error().kind() == ErrorKind::unsupported) << done.error().message();
  }
  void extents(Range range) {
    for (const Extent& extent : must(run(device_.extents(range, 1 + random_() % 20)))) {
      EXPECT_TRUE(!extent.reads_zero || model_.is_zero_where_defined(extent.range()))
          << "promised zeros at " << extent.offset << "+" << extent.length;
    }
  }
  void read(Range range) {
    std::vector<std::byte> bytes(range.length, std::byte{0xee});
    if (const auto at_once = device_.try_read(range.offset, bytes)) {
      must(*at_once);
    } else {
      must(run(device_.read(range.offset, bytes)));
    }
    EXPECT_EQ(model_.difference(range.offset, bytes), "");
  }

  BlockDevice& device_;
  Model model_;
  std::mt19937_64 random_;
};

TEST_P(DeviceContract, AnySequenceOfCallsGivesWhatTheModelGives) {
  const char* given = std::getenv("DISKFERRY_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  SCOPED_TRACE(fmt::format("DISKFERRY_SEED={}", seed));
  BlockDevice& device = open(540672 + 513);
  Walk walk(device, seed);
  walk.start();
  for (int i = 0; i < times(300) && !HasFailure(); ++i) walk.step();
  walk.read_all();
}

}  // namespace
}  // namespace diskferry::test
