#include "drivers/nfs/zero_probe.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/nfs/storage.hpp"

#include <algorithm>

#include <boost/asio/this_coro.hpp>

namespace diskferry::nfs {
namespace {
constexpr std::uint64_t probes_max = 8;
/// The superblock of btrfs is 64 KiB from the start: what most others have lies before it.
constexpr std::uint64_t probe_bytes_max = 128 * kib;
constexpr std::uint64_t page_bytes = 4096;
}  // namespace

std::vector<Range> zero_probes(std::uint64_t size_bytes) {
  const std::uint64_t length = std::min(size_bytes, probe_bytes_max);
  const std::uint64_t last = size_bytes - length;
  const std::uint64_t count =
      std::clamp<std::uint64_t>(divide_up(size_bytes, probe_bytes_max), 1, probes_max);
  std::vector<Range> probes;
  for (std::uint64_t i = 0; i + 1 < count; ++i)
    probes.push_back({align_down(last / (count - 1) * i, page_bytes), length});
  probes.push_back({last, length});
  return probes;
}

Task<Result<bool>> reads_as_zeros(Storage& storage) {
  const std::vector<Range> probes = zero_probes(storage.size_bytes());
  std::vector<std::byte> bytes(probes.size() * probe_bytes_max);
  const Executor executor = co_await boost::asio::this_coro::executor;
  TaskGroup reads(executor);
  std::span<std::byte> rest(bytes);
  for (const Range& probe : probes) {
    reads.spawn(storage.read(probe.offset, rest.first(probe.length)));
    rest = rest.subspan(probe.length);
  }
  DISKFERRY_CO_CHECK(co_await reads.join());
  co_return is_zero(bytes);
}

}  // namespace diskferry::nfs
