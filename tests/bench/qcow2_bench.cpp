// Measures writing to a qcow2 image by itself: random and sequential writes, into nothing and in place, many
// at once.
//   qcow2_bench FOLDER [MIB]
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/image/image.hpp"
#include "gateway/runtime/runtime.hpp"
#include "tests/bench/bench.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <random>

namespace diskferry {
namespace {
using benches::cpu_seconds;
using benches::must;

struct Load {
  const char* name;
  bool is_random;
  std::size_t bytes;
  std::uint64_t count;  ///< in all
};

Task<Result<void>> write_some(BlockDevice& device, Load load, std::uint64_t first, unsigned step) {
  std::vector<std::byte> data(load.bytes, std::byte{0x5a});
  std::mt19937_64 random(first + 1);
  const std::uint64_t blocks = device.size_bytes() / load.bytes;
  for (std::uint64_t i = first; i < load.count; i += step) {
    const std::uint64_t at = (load.is_random ? random() : i) % blocks * load.bytes;
    if (auto now = device.try_write(at, data); now) {
      DISKFERRY_CO_CHECK(*now);
    } else {
      DISKFERRY_CO_CHECK(co_await device.write(at, data, {}));
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> run_load(Runtime& runtime, BlockDevice& device, Load load) {
  constexpr unsigned tasks = 32;
  TaskGroup group(runtime.reactor(0));
  for (unsigned i = 0; i < tasks; ++i)
    group.spawn_on(runtime.reactor(i % runtime.reactor_count()), write_some(device, load, i, tasks));
  DISKFERRY_CO_CHECK(co_await group.join());
  co_return co_await device.flush();
}

void measure(Runtime& runtime, BlockDevice& device, Load load) {
  const auto start = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  must(runtime.run(run_load(runtime, device, load)));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{:36} {:8.0f} /s {:8.1f} MiB/s  cpu {:.1f} us each\n", load.name,
             static_cast<double>(load.count) / seconds,
             static_cast<double>(load.count * load.bytes) / seconds / static_cast<double>(mib),
             (cpu_seconds() - cpu) * 1e6 / static_cast<double>(load.count));
}

}  // namespace
}  // namespace diskferry

int main(int count, char** arguments) {
  using namespace diskferry;
  using benches::must;
  if (count < 2) return 2;
  const std::uint64_t size = (count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1024) * mib;
  Runtime runtime;
  const auto uri = ImageUri::from_path(std::string(arguments[1]) + "/qcow2_bench.qcow2");
  must(runtime.run(
      create_image(runtime.context(), uri, {.format = "qcow2", .size_bytes = size, .replace = true})));
  auto image = must(runtime.run(open_image(runtime.context(), uri, {.format = "qcow2", .writable = true})));
  measure(runtime, image.device(), {"random 4 KiB into nothing", true, 4096, 20000});
  measure(runtime, image.device(), {"sequential 1 MiB", false, 1 * mib, size / mib});
  measure(runtime, image.device(), {"random 4 KiB in place", true, 4096, 400000});
  measure(runtime, image.device(), {"sequential 256 KiB in place", false, 256 * kib, size / (256 * kib)});
  must(runtime.run(image.close()));
  std::remove((std::string(arguments[1]) + "/qcow2_bench.qcow2").c_str());
}
