// The window's acknowledgement: how fast it takes in writes, over a target that answers at once, and what of
// it is sent. The mirror of a guest sends 1 MiB writes first and 64 KiB rewrites of mostly unchanged blocks
// then.
//
//   window_bench [SECONDS]
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "gateway/mirror/window.hpp"
#include "gateway/runtime/runtime.hpp"
#include "tests/bench/bench.hpp"

#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <random>

namespace diskferry {
namespace {

/// Takes everything and keeps nothing.
class NullDisk final : public BlockDevice {
 public:
  explicit NullDisk(std::uint64_t size_bytes) : size_bytes_(size_bytes) {
    info_.name = "null";
    info_.is_read_only = false;
    info_.zero = ZeroSupport::fast;
  }
  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Task<Result<void>> read(std::uint64_t, std::span<std::byte>) override { co_return Result<void>{}; }
  Task<Result<void>> write(std::uint64_t, std::span<const std::byte>, WriteFlags) override {
    co_return Result<void>{};
  }
  Task<Result<void>> write_zeroes(Range, ZeroFlags) override { co_return Result<void>{}; }
  Task<Result<void>> discard(Range) override { co_return Result<void>{}; }
  Task<Result<void>> flush() override { co_return Result<void>{}; }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t) override {
    co_return std::vector<Extent>{{.offset = range.offset, .length = range.length}};
  }
  Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  DeviceInfo info_;
  std::uint64_t size_bytes_;
};

struct Load {
  std::string_view name;
  std::size_t request_bytes;
  bool is_random;
  std::size_t changed_bytes;  ///< of each request, the others are as written before
};

/// Writes until the time is over; returns how many.
Task<Result<std::uint64_t>> write_load(BlockDevice& device, Load load, std::chrono::nanoseconds span) {
  constexpr std::uint64_t area_bytes = 4 * gib;
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> words(load.request_bytes / 8);
  for (std::uint64_t& word : words) word = random();
  const auto bytes = std::as_bytes(std::span(words));
  const auto begun = std::chrono::steady_clock::now();
  std::uint64_t count = 0;
  while (std::chrono::steady_clock::now() - begun < span) {
    for (int i = 0; i < 64; ++i, ++count) {
      // One word makes a block another one.
      for (std::size_t at = 0; at < load.changed_bytes / 8; at += 512) words[at] = random();
      const std::uint64_t slot = load.is_random ? random() : count;
      const std::uint64_t areas =
          (load.changed_bytes < load.request_bytes ? 64 * mib : area_bytes) / load.request_bytes;
      const std::uint64_t offset = slot % areas * load.request_bytes;
      if (auto done = device.try_write(offset, bytes)) {
        DISKFERRY_CO_CHECK(*std::move(done));
      } else {
        DISKFERRY_CO_CHECK(co_await device.write(offset, bytes, {}));
      }
    }
  }
  co_return count;
}

Task<Result<void>> measure(Runtime& runtime, Load load, std::chrono::nanoseconds span) {
  auto made = std::make_unique<Window>(
      runtime.context(), std::shared_ptr<BlockDevice>(checked(std::make_unique<NullDisk>(64 * gib))),
      WindowOptions{});
  const Window& window = *made;
  const DevicePtr device = checked(std::move(made));
  const double cpu_before = benches::cpu_seconds();
  const auto begun = std::chrono::steady_clock::now();
  DISKFERRY_CO_TRY(const std::uint64_t count, co_await write_load(*device, load, span));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const double cpu = benches::cpu_seconds() - cpu_before;
  DISKFERRY_CO_CHECK(co_await device->flush());
  const WindowStats stats = window.stats();
  const auto bytes = static_cast<double>(count * load.request_bytes);
  fmt::print(
      "{:<28} {:>9.0f} writes/s {:>7.2f} GB/s  CPU {:.2f}  sent {:.3f} unchanged {:.3f} superseded {:.3f}\n",
      load.name, static_cast<double>(count) / seconds, bytes / seconds / 1e9, cpu / seconds,
      static_cast<double>(stats.sent_bytes) / bytes, static_cast<double>(stats.unchanged_bytes) / bytes,
      static_cast<double>(stats.superseded_bytes) / bytes);
  co_return co_await device->close();
}

}  // namespace
}  // namespace diskferry

int main(int argc, char** argv) {
  using namespace diskferry;
  const std::chrono::duration<double> span(argc > 1 ? std::atof(argv[1]) : 2.0);
  Runtime runtime;
  for (const Load& load :
       {Load{"1 MiB in order", mib, false, mib}, Load{"64 KiB in order", 64 * kib, false, 64 * kib},
        Load{"4 KiB at random", 4 * kib, true, 4 * kib},
        Load{"64 KiB, one block changed", 64 * kib, true, 4 * kib},
        Load{"64 KiB, nothing changed", 64 * kib, false, 0}})
    benches::must(
        runtime.run(measure(runtime, load, std::chrono::duration_cast<std::chrono::nanoseconds>(span))));
  return 0;
}
