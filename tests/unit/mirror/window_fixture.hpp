// A window over a volatile disk behind a fault device: what the tests of the window stand on.
#pragma once

#include "drivers/checked_device.hpp"
#include "drivers/filters/fault.hpp"
#include "gateway/mirror/window.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/mirror/volatile_disk.hpp"

namespace diskferry::test {

struct DiskOptions {
  std::uint64_t size_bytes = mib;
  std::uint32_t block_bytes = 1;
  ZeroSupport zero = ZeroSupport::unmapping;
  bool starts_zeroed = true;
};

/// Closed by the destructor.
class WindowUnderTest {
 public:
  explicit WindowUnderTest(DiskOptions disk, WindowOptions options = {}, std::uint64_t seed = 1)
      : faults(std::make_shared<FaultControl>(FaultPlan{.seed = seed, .rules = {}})) {
    auto storage =
        std::make_unique<VolatileDisk>(disk.size_bytes, disk.block_bytes, disk.zero, disk.starts_zeroed);
    target = storage.get();
    DriverContext& context = runtime().context();
    std::shared_ptr<BlockDevice> faulty = checked(
        make_fault_device(std::shared_ptr<BlockDevice>(checked(std::move(storage))), faults, context.clock));
    auto made = std::make_unique<Window>(context, std::move(faulty), std::move(options));
    window = made.get();
    device = checked(std::move(made));
  }
  WindowUnderTest(const WindowUnderTest&) = delete;
  WindowUnderTest& operator=(const WindowUnderTest&) = delete;
  ~WindowUnderTest() { must(run(device->close())); }

  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes) {
    return run(device->write(offset, bytes, {}));
  }
  Result<void> zero(Range range) { return run(device->write_zeroes(range, {})); }
  Result<void> flush() { return run(device->flush()); }
  std::vector<std::byte> read(Range range) {
    std::vector<std::byte> bytes(range.length);
    must(run(device->read(range.offset, bytes)));
    return bytes;
  }
  std::shared_ptr<FaultControl> faults;
  VolatileDisk* target = nullptr;
  Window* window = nullptr;
  DevicePtr device;
};

}  // namespace diskferry::test
