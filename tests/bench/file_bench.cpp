// Measures the file driver by itself, on a file of its own in the folder named: what one call costs when the
// page cache has the data, and how fast it goes when storage has. For docs/decisions/0002-file-io.md.
//   file_bench FOLDER [MIB] [KEYS]     KEYS: query keys of the URI, such as cache=none
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "gateway/runtime/runtime.hpp"
#include "tests/bench/bench.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <random>
#include <unistd.h>

namespace diskferry {
namespace {
using benches::cpu_seconds;
using benches::must;

using SteadyClock = std::chrono::steady_clock;

struct Scene {
  Runtime& runtime;
  BlockDevice& device;
  std::string path;
  std::uint64_t size;
};

void drop_cache(const Scene& scene) {
  const int fd = ::open(scene.path.c_str(), O_RDONLY | O_CLOEXEC);
  ::fdatasync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

enum class Pattern { random, sequential };
struct Load {
  const char* name;
  Pattern pattern;
  bool is_write;
  bool may_inline;  // try_read and try_write first, as the NBD server does
  std::size_t bytes;
  unsigned tasks;
  bool is_cold;
  double seconds_max;
};

struct Shared {
  Scene& scene;
  const Load& load;
  SteadyClock::time_point end;
  std::atomic<std::uint64_t> next = 0;
  std::atomic<std::uint64_t> requests = 0;
  std::atomic<std::uint64_t> at_once = 0;
};

Task<Result<void>> worker(Shared& shared, unsigned number) {
  const Load& load = shared.load;
  BlockDevice& device = shared.scene.device;
  std::mt19937_64 random(number);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, load.bytes));
  const std::unique_ptr<std::byte, decltype(&std::free)> owner(memory, &std::free);
  std::fill_n(memory, load.bytes, std::byte{0x5a});
  const std::span<std::byte> buffer(memory, load.bytes);
  const std::uint64_t blocks = shared.scene.size / load.bytes;
  for (std::uint64_t done = 0;; ++done) {
    if (done % 32 == 0 && SteadyClock::now() >= shared.end) break;
    std::uint64_t block = 0;
    if (load.pattern == Pattern::random) {
      block = random() % blocks;
    } else if (block = shared.next++; block >= blocks) {
      break;
    }
    const std::uint64_t offset = block * load.bytes;
    std::optional<Result<void>> at_once;
    if (load.may_inline)
      at_once = load.is_write ? device.try_write(offset, buffer) : device.try_read(offset, buffer);
    if (at_once) {
      DISKFERRY_CO_CHECK(*std::move(at_once));
      shared.at_once.fetch_add(1, std::memory_order_relaxed);
    } else if (load.is_write) {
      DISKFERRY_CO_CHECK(co_await device.write(offset, buffer, {}));
    } else {
      DISKFERRY_CO_CHECK(co_await device.read(offset, buffer));
    }
    shared.requests.fetch_add(1, std::memory_order_relaxed);
  }
  co_return Result<void>{};
}

Task<Result<void>> run_load(Scene& scene, Shared& shared) {
  TaskGroup group(scene.runtime.reactor(0));
  for (unsigned number = 0; number < shared.load.tasks; ++number)
    group.spawn_on(scene.runtime.reactor(number), worker(shared, number));
  co_return co_await group.join();
}

void measure(Scene& scene, const Load& load) {
  if (load.is_cold) drop_cache(scene);
  Shared shared{.scene = scene,
                .load = load,
                .end = SteadyClock::now() + std::chrono::duration_cast<SteadyClock::duration>(
                                                std::chrono::duration<double>(load.seconds_max))};
  const double cpu = cpu_seconds();
  const auto started = SteadyClock::now();
  must(scene.runtime.run(run_load(scene, shared)));
  const double moved = std::chrono::duration<double>(SteadyClock::now() - started).count();
  if (load.is_write && load.pattern == Pattern::sequential) must(scene.runtime.run(scene.device.flush()));
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - started).count();
  const auto requests = static_cast<double>(shared.requests.load());
  fmt::print(
      "{:<34} {:>8} B x {:<3} {:>10.0f} /s {:>8.2f} GB/s  {:>6.2f} us cpu each{}{}\n", load.name, load.bytes,
      load.tasks, requests / seconds, requests * static_cast<double>(load.bytes) / seconds * 1e-9,
      (cpu_seconds() - cpu) / requests * 1e6,
      load.may_inline
          ? fmt::format("  ({:.2f} % at once)", 100 * static_cast<double>(shared.at_once) / requests)
          : "",
      seconds > moved * 1.01 ? fmt::format("  ({:.2f} s + {:.2f} s flush)", moved, seconds - moved) : "");
  std::fflush(stdout);
}

int bench(const std::string& folder, std::uint64_t size, const std::string& keys) {
  Runtime runtime;
  const std::string path = fmt::format("{}/diskferry-bench-{}", folder, ::getpid());
  auto uri = must(ImageUri::parse("file://" + path + (keys.empty() ? "" : "?" + keys)));
  must(runtime.run(create_storage(runtime.context(), ImageUri::from_path(path), {.size_bytes = size})));
  auto device = must(runtime.run(open_storage(runtime.context(), uri, {.writable = true})));
  Scene scene{runtime, *device, path, size};
  const Load loads[] = {
      {"write a new file", Pattern::sequential, true, false, 1 * mib, 2, false, 60},
      {"write it again", Pattern::sequential, true, false, 256 * kib, 2, false, 60},
      {"read, warm, inline", Pattern::random, false, true, 4096, 1, false, 2},
      {"read, warm, coroutine", Pattern::random, false, false, 4096, 1, false, 2},
      {"write, warm, inline", Pattern::random, true, true, 4096, 1, false, 1},
      {"write, warm, coroutine", Pattern::random, true, false, 4096, 1, false, 1},
      {"read, warm", Pattern::sequential, false, false, 1 * mib, 2, false, 60},
      {"read, cold", Pattern::random, false, false, 4096, 1, true, 1.5},
      {"read, cold", Pattern::random, false, false, 4096, 8, true, 1.5},
      {"read, cold", Pattern::random, false, false, 4096, 32, true, 1.5},
      {"read, cold", Pattern::random, false, false, 65536, 8, true, 1.5},
      {"read, cold", Pattern::sequential, false, false, 256 * kib, 1, true, 60},
      {"read, cold", Pattern::sequential, false, false, 256 * kib, 8, true, 60},
      {"read, cold", Pattern::sequential, false, false, 1 * mib, 4, true, 60},
  };
  for (const Load& load : loads) measure(scene, load);
  must(runtime.run(device->close()));
  ::unlink(path.c_str());
  return 0;
}

}  // namespace
}  // namespace diskferry

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: file_bench FOLDER [MIB] [KEYS]\n");
    return 2;
  }
  const std::uint64_t mib_count = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1024;
  return diskferry::bench(argv[1], mib_count * diskferry::mib, argc > 3 ? argv[3] : "");
}
