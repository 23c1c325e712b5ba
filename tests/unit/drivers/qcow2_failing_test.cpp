// Storage that fails or is full at every single step of writing an image, and works again afterwards: what
// was acknowledged and flushed stays, the image can be checked at any time, and writing goes on.
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/recording_device.hpp"

#include <fmt/format.h>
#include <fstream>

namespace diskferry {
namespace {
using test::must;
using test::run;

struct Shape {
  std::string name;
  qcow2::NewImage image;
  bool compress = false;
};

/// A storage whose calls fail by rules, under an image.
class Failing {
 public:
  explicit Failing(const Shape& shape) : compress_(shape.compress) {
    auto owned = std::make_unique<test::RecordingDevice>();
    bytes = owned.get();
    const std::shared_ptr<BlockDevice> plain = checked(std::move(owned));
    must(run(qcow2::create(*plain, shape.image)));
    storage_ = checked(make_fault_device(plain, control, test::runtime().context().clock));
  }

  std::unique_ptr<qcow2::Qcow2Device> open() const { return open_over(storage_); }
  /// What the storage holds now, opened as another process would.
  std::unique_ptr<qcow2::Qcow2Device> open_copy() const {
    return open_over(checked(std::make_unique<test::RecordingDevice>(bytes->content())));
  }

  void expect_sound(const std::string& when) const {
    const std::string path = folder_ / "now.qcow2";
    const auto& content = bytes->content();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    const auto check = test::run_program({"qemu-img", "check", "-f", "qcow2", path});
    ASSERT_TRUE(check.exit_code == 0 || check.exit_code == 3) << when << "\n" << check.out << check.err;
  }

  test::RecordingDevice* bytes = nullptr;
  std::shared_ptr<FaultControl> control = std::make_shared<FaultControl>(FaultPlan{});

 private:
  std::unique_ptr<qcow2::Qcow2Device> open_over(const std::shared_ptr<BlockDevice>& storage) const {
    std::vector<std::byte> start(std::min<std::uint64_t>(2 * mib, storage->size_bytes()));
    must(run(storage->read(0, start)));
    return must(run(qcow2::Qcow2Device::open(test::runtime().context(),
                                             {.name = "failing",
                                              .header = must(qcow2::parse_header(start, "failing")),
                                              .storage = storage,
                                              .writable = true,
                                              .compress_writes = compress_})));
  }

  bool compress_ = false;
  test::TemporaryFolder folder_;
  std::shared_ptr<BlockDevice> storage_;
};

TEST(Qcow2, DataIsInTheBackgroundWhereTheWriteIs) {
  Failing image({"plain", {.size_bytes = 4 * mib}});
  const auto device = image.open();
  // In new clusters, with a part of one before and behind, and in those that are there.
  const std::uint64_t at = 100'000;
  const std::vector<std::byte> data(300'000, std::byte{5});
  for (int round = 1; round <= 2; ++round) {
    must(run(device->write(at, data, {.in_background = true})));
    EXPECT_GE(image.bytes->background_bytes, static_cast<std::uint64_t>(round) * data.size());
  }
  const std::uint64_t before = image.bytes->background_bytes;
  must(run(device->write(at, data, {})));
  EXPECT_EQ(image.bytes->background_bytes, before);
  must(run(device->close()));
}

/// A refcount table of one cluster of 512 bytes counts 64 blocks of 64 clusters: full after 2 MiB.
TEST(Qcow2Failing, AHeaderThatMayOrMayNotNameTheNewRefcountTableIsSettledFirst) {
  for (const FaultAction action : {FaultAction::fail, FaultAction::fail_late}) {
    const Shape shape{"growing", {.size_bytes = 4 * mib, .cluster_bits = 9, .refcount_order = 6}};
    Failing failing(shape);
    auto device = failing.open();
    // The header's fields of the refcount table, and nothing else.
    failing.control->add({.verb = FaultVerb::write, .action = action, .range = {48, 12}, .last_call = 3});
    std::vector<std::byte> data(64 * kib);
    unsigned failed = 0;
    for (std::uint64_t at = 0; at < shape.image.size_bytes; at += data.size()) {
      test::fill_pattern(data, at, 1);
      while (!run(device->write(at, data, {}))) ASSERT_LT(++failed, 10u);
      if (!run(device->flush())) ++failed;
      // Also when the storage went away now, the header names a table that is whole.
      if (failed != 0 && failed < 4) failing.expect_sound(fmt::format("after {} failures", failed));
    }
    EXPECT_GE(failed, 3u);
    must(run(device->close()));
    failing.expect_sound("at the end");
    auto again = failing.open_copy();
    std::vector<std::byte> seen(data.size());
    for (std::uint64_t at = 0; at < shape.image.size_bytes; at += data.size()) {
      test::fill_pattern(data, at, 1);
      must(run(again->read(at, seen)));
      ASSERT_EQ(seen, data) << at;
    }
    must(run(again->close()));
  }
}

constexpr std::uint64_t disk_bytes = 1 * mib;

class Qcow2FailingAt : public testing::TestWithParam<Shape> {
 protected:
  /// Asks again until it is done, as a guest does whose host made room meanwhile; counts the failures.
  template <class Operation>
  void insist(Failing& failing, unsigned step, Operation operation) {
    for (unsigned attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 8u) << "step " << step;
      const auto done = run(operation());
      if (done) return;
      EXPECT_TRUE(done.error().kind() == ErrorKind::no_space || done.error().kind() == ErrorKind::io)
          << done.error().message();
      ++failures;
      failing.expect_sound(fmt::format("failed in step {}", step));
    }
  }

  /// The same requests every time; `disk` becomes what the disk holds.
  void write_some(Failing& failing, BlockDevice& device, std::vector<std::byte>& disk) {
    std::mt19937_64 random(11);
    disk.assign(disk_bytes, std::byte{0});
    for (unsigned step = 0; step < 24; ++step) {
      const std::uint64_t length = align_up(random() % (96 * kib) + 1, 512);
      const Range range{align_down(random() % (disk_bytes - length), step % 2 == 0 ? 4096 : 512), length};
      const auto part = std::span(disk).subspan(range.offset, range.length);
      if (step % 6 == 5) {
        std::ranges::fill(part, std::byte{0});
        insist(failing, step, [&] { return device.write_zeroes(range, {.may_unmap = step % 12 == 5}); });
      } else {
        test::fill_pattern(part, range.offset, step);
        if (step % 3 == 0) std::ranges::fill(part.subspan(0, part.size() / 2), std::byte{7});
        insist(failing, step, [&] { return device.write(range.offset, part, {}); });
      }
      if (step % 4 == 3) insist(failing, step, [&] { return device.flush(); });
      if (HasFatalFailure()) return;
    }
  }
  unsigned failures = 0;
};

TEST_P(Qcow2FailingAt, EveryStepInTurnAndWritingGoesOnOnceThereIsRoom) {
  struct Fault {
    FaultVerb verb;
    ErrorKind error;
    FaultAction action;
  };
  for (const Fault& fault : {Fault{FaultVerb::write, ErrorKind::no_space, FaultAction::fail},
                             Fault{FaultVerb::write, ErrorKind::io, FaultAction::fail_late},
                             Fault{FaultVerb::flush, ErrorKind::io, FaultAction::fail}}) {
    const bool is_long = GetParam().image.extended_l2 || GetParam().compress;
    for (std::uint64_t call = 1;; call += is_long || fault.action == FaultAction::fail_late ? 3 : 1) {
      SCOPED_TRACE(fmt::format("verb {} from call {} on", static_cast<int>(fault.verb), call));
      Failing failing(GetParam());
      auto device = failing.open();
      failures = 0;
      failing.control->add({.verb = fault.verb,
                            .action = fault.action,
                            .error = fault.error,
                            .first_call = call,
                            .last_call = call + 1});
      std::vector<std::byte> disk;
      write_some(failing, *device, disk);
      if (HasFatalFailure()) return;
      failing.control->clear();
      must(run(device->close()));
      failing.expect_sound("at the end");
      auto again = failing.open_copy();
      std::vector<std::byte> seen(disk_bytes);
      must(run(again->read(0, seen)));
      must(run(again->close()));
      const auto differs = std::ranges::mismatch(seen, disk).in1 - seen.begin();
      ASSERT_EQ(differs, static_cast<std::ptrdiff_t>(disk_bytes));
      if (HasFatalFailure() || failures == 0) break;
    }
    if (HasFatalFailure()) return;
  }
}

std::vector<Shape> shapes() {
  return {{"clusters_64k", {.size_bytes = disk_bytes}},
          {"clusters_4k", {.size_bytes = disk_bytes, .cluster_bits = 12}},
          {"extended_16k", {.size_bytes = disk_bytes, .cluster_bits = 14, .extended_l2 = true}},
          {"compressed_4k", {.size_bytes = disk_bytes, .cluster_bits = 12}, true}};
}
INSTANTIATE_TEST_SUITE_P(Shapes, Qcow2FailingAt, testing::ValuesIn(shapes()),
                         [](const auto& shape) { return shape.param.name; });

}  // namespace
}  // namespace diskferry
