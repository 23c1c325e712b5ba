// What a prediction needs to know of a running machine, by watching it for a while.
#include "gateway/move/preflight_collect.hpp"

#include <algorithm>

namespace diskferry {
namespace {

PredictionInput known_beforehand(const PreflightFacts& facts, std::uint64_t link_bytes_per_s) {
  const MoveRequest& request = facts.request;
  PredictionInput input{.link_bytes_per_s = link_bytes_per_s,
                        .bound_bytes_per_s = request.bytes_per_s,
                        .max_pause_ms = request.max_pause_ms,
                        .round_trip_us = facts.round_trip_us.value_or(0),
                        .timeout_s = request.timeout_s,
                        .auto_converge = request.auto_converge,
                        .post_copy = request.post_copy};
  for (const DiskFacts& disk : facts.disks)
    if (disk.move)
      input.disk_bytes += std::min(disk.allocated_bytes.value_or(disk.size_bytes), disk.size_bytes);
  return input;
}

/// All copied disks together. Errors: as disk_counters().
Task<Result<std::uint64_t>> written_bytes(Libvirt& source, const PreflightFacts& facts) {
  std::uint64_t bytes = 0;
  for (const DiskFacts& disk : facts.disks) {
    if (!disk.move) continue;
    DISKFERRY_CO_TRY(const LibvirtDiskCounters counters,
                     co_await source.disk_counters(facts.machine.name, disk.disk.target));
    bytes += counters.written_bytes;
  }
  co_return bytes;
}

}  // namespace

Task<Result<MeasuredPrediction>> measure_for_prediction(DriverContext& context, Libvirt& source,
                                                        const PreflightFacts& facts, unsigned seconds,
                                                        std::uint64_t link_bytes_per_s) {
  MeasuredPrediction measured{.input = known_beforehand(facts, link_bytes_per_s)};
  if (facts.machine.state != VmState::running && facts.machine.state != VmState::paused) co_return measured;
  measured.input.memory_bytes = facts.machine.memory_bytes;
  if (facts.machine.state == VmState::paused) co_return measured;  // it changes nothing
  const TimePoint begin = context.clock.now();
  auto before = co_await written_bytes(source, facts);
  auto dirty = co_await source.dirty_bytes_per_s(facts.machine.name, seconds);
  if (dirty)
    measured.input.memory_dirty_bytes_per_s = *dirty;
  else
    measured.unmeasured.push_back({.subject = "memory", .error = std::move(dirty).error()});
  // The measurement of the memory took the time; without one, it is still to be waited for.
  DISKFERRY_CO_CHECK(co_await context.clock.sleep_until(Clock::after(begin, std::chrono::seconds(seconds))));
  auto after = co_await written_bytes(source, facts);
  if (!before || !after) {
    measured.unmeasured.push_back({.subject = "disks", .error = before ? after.error() : before.error()});
    co_return measured;
  }
  const double took_s = std::chrono::duration<double>(context.clock.now() - begin).count();
  if (*after > *before && took_s > 0)
    measured.input.disk_written_bytes_per_s =
        static_cast<std::uint64_t>(static_cast<double>(*after - *before) / took_s);
  co_return measured;
}

}  // namespace diskferry
