// The NBD client alone: all bytes of one export, read with many requests at once, and written to a second
// export where one is given. To be held against `nbdcopy --no-extents SOURCE null:` and `nbdcopy SOURCE
// TARGET`.
//
//   nbd_bench SOURCE-URI [TARGET-URI [WORKERS]]
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "gateway/runtime/runtime.hpp"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <sys/resource.h>

namespace diskferry {
namespace {

constexpr std::size_t request_bytes = 256 * kib;  // nbdcopy's size, and the best in its authors' measurements

struct Copy {
  BlockDevice& source;
  BlockDevice* target;
  std::atomic<std::uint64_t> next = 0;
};

Task<Result<void>> work(DriverContext& context, Copy& copy) {
  DISKFERRY_CO_TRY(Buffer buffer, co_await context.buffers.acquire(request_bytes));
  while (true) {
    const std::uint64_t at = copy.next.fetch_add(request_bytes);
    if (at >= copy.source.size_bytes()) co_return Result<void>{};
    const auto bytes =
        buffer.span().first(std::min<std::uint64_t>(request_bytes, copy.source.size_bytes() - at));
    DISKFERRY_CO_CHECK(co_await copy.source.read(at, bytes));
    if (copy.target != nullptr) DISKFERRY_CO_CHECK(co_await copy.target->write(at, bytes, {}));
  }
}

Task<Result<void>> run_copy(Runtime& runtime, std::vector<std::string> names, unsigned workers) {
  DISKFERRY_CO_TRY(const ImageUri source_uri, ImageUri::parse(names[0]));
  DISKFERRY_CO_TRY(const DevicePtr source, co_await open_storage(runtime.context(), source_uri, {}));
  DevicePtr target;
  if (names.size() > 1) {
    DISKFERRY_CO_TRY(const ImageUri target_uri, ImageUri::parse(names[1]));
    DISKFERRY_CO_TRY(target, co_await open_storage(runtime.context(), target_uri, {.writable = true}));
  }
  Copy copy{.source = *source, .target = target.get()};
  TaskGroup group(runtime.reactor(0));
  for (unsigned i = 0; i < workers; ++i) group.spawn_on(runtime.reactor(i), work(runtime.context(), copy));
  const auto copied = co_await group.join();
  if (target) DISKFERRY_CO_CHECK(co_await target->close());
  DISKFERRY_CO_CHECK(co_await source->close());
  co_return copied;
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

}  // namespace
}  // namespace diskferry

int main(int argc, char** argv) {
  using namespace diskferry;
  if (argc < 2) return 2;
  const std::vector<std::string> names(argv + 1, argv + std::min(argc, 3));
  const unsigned workers = argc > 3 ? static_cast<unsigned>(std::atoi(argv[3])) : 32;
  const auto begun = std::chrono::steady_clock::now();
  {
    Runtime runtime;
    const auto result = runtime.run(run_copy(runtime, names, workers));
    if (!result) {
      fmt::print(stderr, "{}\n", result.error().message());
      return 1;
    }
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("{:.3f} s, user {:.3f} s, system {:.3f} s, switches {} + {}\n",
             std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(),
             seconds(usage.ru_utime), seconds(usage.ru_stime), usage.ru_nvcsw, usage.ru_nivcsw);
  return 0;
}
