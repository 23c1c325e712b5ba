// The copy loop; see engine.hpp. Fast paths first: where both devices answer at once (page cache, memory), a
// unit never leaves its thread nor its cache.
#include "gateway/copy/engine.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <cstring>
#include <random>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace asio = boost::asio;
namespace {

/// Zeros shorter than this are written as data where they must be written at all: a zeroing request is a
/// system call or a round trip of its own and splits a file into more extents.
constexpr std::size_t zero_request_bytes_min = 64 * 1024;
/// What is read back at once where it is served from memory: it stays in the first-level caches.
constexpr std::size_t read_back_step_bytes = 128 * 1024;

/// Zeros that were left out are the target's promise, as in a unit that is skipped: reading them would fill
/// the cache of a file with its holes (from NFS to a file of 4 GiB, half of it holes: 57 % of the time).
/// Short ones go with the data around them.
std::vector<Range> parts_to_read_back(std::span<const DataRun> runs, bool leaves_zeros_out) {
  std::vector<Range> parts;
  for (const DataRun& run : runs) {
    if (run.is_zero && leaves_zeros_out && run.length >= zero_request_bytes_min) continue;
    if (parts.empty() || parts.back().end() != run.offset) parts.push_back({run.offset, 0});
    parts.back().length += run.length;
  }
  return parts;
}

/// Gives a unit back, however it ends.
struct UnitEnd {
  WorkSource& work;
  const Work unit;
  bool is_done = false;
  UnitEnd(WorkSource& from, Work taken) : work(from), unit(taken) {}
  ~UnitEnd() { work.ended(unit, is_done); }
  UnitEnd(const UnitEnd&) = delete;
  UnitEnd& operator=(const UnitEnd&) = delete;
};

}  // namespace

std::size_t first_difference(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  constexpr std::size_t step = 4096;
  for (std::size_t at = 0; at < a.size(); at += step) {
    const std::size_t now = std::min(step, a.size() - at);
    if (std::memcmp(a.data() + at, b.data() + at, now) == 0) continue;
    return at + static_cast<std::size_t>(std::ranges::mismatch(a.subspan(at, now), b.subspan(at, now)).in1 -
                                         a.begin() - static_cast<std::ptrdiff_t>(at));
  }
  return a.size();
}

Error difference_at(const BlockDevice& target, std::uint64_t offset) {
  return fail(ErrorKind::mismatch, "verify", target.info().name)
      .at(offset, 1)
      .why("the target gives back other bytes than were written")
      .remedy("do not use this copy; check the target's storage, then copy again");
}

CopyEngine::CopyEngine(DriverContext& context, Devices devices, EngineOptions options, EngineHooks hooks)
    : context_(context),
      devices_(devices),
      options_(options),
      hooks_(std::move(hooks)),
      rate_(options.bytes_per_s),
      units_(std::random_device()()) {
  DISKFERRY_ASSERT(options_.request_bytes * 2 <= BufferPool::buffer_bytes_max && options_.requests > 0,
                   "a request and its re-read fit one buffer");
}

Task<Result<void>> CopyEngine::run(WorkSource& work) {
  TaskGroup workers(co_await asio::this_coro::executor);
  is_stopping_ = false;
  for (unsigned i = 0; i < options_.requests; ++i)
    workers.spawn_on(context_.reactors[i % context_.reactors.size()], work_off(work));
  co_return co_await workers.join();
}

Task<Result<void>> CopyEngine::work_off(WorkSource& work) {
  const Executor executor = co_await asio::this_coro::executor;
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("copy"));
    auto unit = co_await work.next();
    Result<void> done;
    if (!unit) {
      done = unexpected(std::move(unit).error());
    } else if (!*unit) {
      co_return Result<void>{};
    } else {
      UnitEnd end{work, **unit};
      done = co_await copy(**unit);
      end.is_done = done.has_value();
    }
    if (!done) {
      is_stopping_.store(true, std::memory_order_relaxed);
      co_return done;
    }
    // Units that never wait must not keep timers and signals from this thread.
    co_await asio::post(executor, asio::use_awaitable_t<Executor>{});
  }
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::copy(Work unit) {
  const std::uint64_t length = unit.range.length;
  switch (unit.kind) {
    case WorkKind::copy:
      DISKFERRY_CO_CHECK(co_await copy_data(unit));
      break;
    case WorkKind::zero:
      DISKFERRY_CO_CHECK(co_await zero(unit.range));
      break;
    case WorkKind::skip:
      counters_.skipped_bytes += length;
      break;
    case WorkKind::leave:
      break;
  }
  counters_.done_bytes += length;
  if (hooks_.progress) hooks_.progress();
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::copy_data(Work unit) {
  if (hooks_.room != nullptr && !hooks_.room->try_acquire(1))
    DISKFERRY_CO_CHECK(co_await hooks_.room->acquire(1));
  const std::size_t length = unit.range.length;
  const bool reads_back = is_read_back();
  const std::size_t buffer_bytes = reads_back ? length * 2 : length;
  Buffer buffer = context_.buffers.try_acquire(buffer_bytes);
  if (!buffer) {
    DISKFERRY_CO_TRY(buffer, co_await context_.buffers.acquire(buffer_bytes));
  }
  if (rate_.is_limited())
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_until(rate_.book(length, context_.clock.now())));
  const std::span<std::byte> bytes = buffer.span().first(length);
  DISKFERRY_CO_CHECK(co_await read_source(unit.range, bytes));
  const ContentHash hash = content_hash(bytes);
  const ScanRules rules{
      .granularity_bytes = options_.granularity_bytes,
      .zero_run_bytes_min = unit.target_reads_zero
                                ? options_.granularity_bytes
                                : std::max<std::size_t>(options_.granularity_bytes, zero_request_bytes_min)};
  std::vector<DataRun> runs;
  scan_runs(bytes, rules, runs);
  DISKFERRY_CO_CHECK(co_await write_runs(unit, bytes, runs));
  PieceState state = PieceState::copied;
  if (reads_back) {
    DISKFERRY_CO_CHECK(co_await read_back_runs(unit, bytes, buffer.span().subspan(length, length), runs));
    state = PieceState::verified;
  }
  // So that the flush at the end finds little left to do: 2 GiB took it 0.5 s without, milliseconds with.
  DISKFERRY_CO_CHECK(co_await devices_.target.start_writeback(unit.range));
  if (hooks_.finished) hooks_.finished({unit.range, state, hash});
  co_return Result<void>{};
}

bool CopyEngine::is_read_back() noexcept {
  return options_.read_back_every != 0 && units_++ % options_.read_back_every == 0;
}

/// What lies beyond the source's end (a target with larger blocks, or larger altogether) is zeros.
Task<Result<void>> CopyEngine::read_source(Range range, std::span<std::byte> into) {
  const Range inside = intersect(range, {0, devices_.source.size_bytes()});
  const auto wanted = into.first(inside.length);
  if (!wanted.empty()) {
    auto done = devices_.source.try_read(range.offset, wanted);
    if (!done) done = co_await devices_.source.read(range.offset, wanted);
    if (!*done && hooks_.salvage != nullptr)
      done = co_await hooks_.salvage->read(devices_.source, inside, wanted, std::move(*done).error());
    if (!*done) {
      auto error = std::move(*done).error();
      if (!error.position()) error = std::move(error).at(inside.offset, inside.length);
      co_return unexpected(std::move(error).in("read the source"));
    }
  }
  std::ranges::fill(into.subspan(wanted.size()), std::byte{0});
  counters_.read_bytes += wanted.size();
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::write_runs(Work unit, std::span<const std::byte> bytes,
                                          std::span<const DataRun> runs) {
  for (const DataRun& run : runs) {
    const Range range{unit.range.offset + run.offset, run.length};
    Result<void> done;
    if (!run.is_zero) {
      done = co_await write_one(range.offset, bytes.subspan(run.offset, run.length));
      counters_.written_bytes += run.length;
      ++counters_.write_requests;
    } else if (unit.target_reads_zero) {
      counters_.skipped_bytes += run.length;
    } else {
      done = co_await devices_.target.write_zeroes(range, {.may_unmap = options_.may_unmap});
      counters_.zeroed_bytes += run.length;
      ++counters_.zero_requests;
    }
    if (!done) {
      auto error = std::move(done).error();
      if (!error.position()) error = std::move(error).at(range.offset, range.length);
      co_return unexpected(std::move(error).in("write the target"));
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::write_one(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (auto done = devices_.target.try_write(offset, bytes)) co_return std::move(*done);
  co_return co_await devices_.target.write(offset, bytes, {});
}

Task<Result<void>> CopyEngine::zero(Range range) {
  if (hooks_.room != nullptr) DISKFERRY_CO_CHECK(co_await hooks_.room->acquire(1));
  auto done = co_await devices_.target.write_zeroes(range, {.may_unmap = options_.may_unmap});
  if (!done) {
    auto error = std::move(done).error();
    if (!error.position()) error = std::move(error).at(range.offset, range.length);
    co_return unexpected(std::move(error).in("write the target"));
  }
  counters_.zeroed_bytes += range.length;
  ++counters_.zero_requests;
  PieceState state = PieceState::zeroed;
  if (is_read_back()) {
    const TimePoint begin = context_.clock.now();
    DISKFERRY_CO_CHECK(co_await check_zeros(context_, devices_.target, range));
    counters_.verified_bytes += range.length;
    counters_.read_back_ns += static_cast<std::uint64_t>((context_.clock.now() - begin).count());
    state = PieceState::verified_zero;
  }
  if (hooks_.finished) hooks_.finished({range, state, {}});
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::read_back_runs(Work unit, std::span<const std::byte> expected,
                                              std::span<std::byte> scratch, std::span<const DataRun> runs) {
  for (const Range part : parts_to_read_back(runs, unit.target_reads_zero))
    DISKFERRY_CO_CHECK(co_await read_back({unit.range.offset + part.offset, part.length},
                                          expected.subspan(part.offset, part.length), scratch));
  co_return Result<void>{};
}

Task<Result<void>> CopyEngine::read_back(Range range, std::span<const std::byte> expected,
                                         std::span<std::byte> scratch) {
  const TimePoint begin = context_.clock.now();
  std::uint64_t at = 0;
  // In small steps while that costs nothing; what is left goes in one request.
  while (at < range.length) {
    const std::size_t step = std::min<std::uint64_t>(read_back_step_bytes, range.length - at);
    auto done = devices_.target.try_read(range.offset + at, scratch.first(step));
    std::size_t now = step;
    if (!done) {
      now = range.length - at;
      done = co_await devices_.target.read(range.offset + at, scratch.first(now));
    }
    if (!*done) co_return unexpected(std::move(*done).error().in("read the target back"));
    const std::size_t same = first_difference(expected.subspan(at, now), scratch.first(now));
    if (same < now) co_return unexpected(difference_at(devices_.target, range.offset + at + same));
    at += now;
  }
  counters_.verified_bytes += range.length;
  counters_.read_back_ns += static_cast<std::uint64_t>((context_.clock.now() - begin).count());
  co_return Result<void>{};
}

Task<Result<void>> check_zeros(DriverContext& context, BlockDevice& target, Range range) {
  constexpr std::uint64_t step_bytes = 1 * mib;
  Buffer buffer;
  while (!range.empty()) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("verify"));
    DISKFERRY_CO_TRY(const auto extents, co_await target.extents(range, 256));
    for (const Extent& extent : extents) {
      for (Range part = extent.range(); !extent.reads_zero && !part.empty();) {
        // Extents may be finer than what can be read.
        const std::uint64_t block = target.info().block_bytes;
        const std::uint64_t begin = align_down(part.offset, block);
        const std::uint64_t end =
            std::min(align_up(std::min(part.end(), begin + step_bytes), block), target.size_bytes());
        if (!buffer) {
          DISKFERRY_CO_TRY(buffer, co_await context.buffers.acquire(step_bytes));
        }
        const auto bytes = buffer.span().first(end - begin);
        DISKFERRY_CO_CHECK(co_await target.read(begin, bytes));
        const Range inside = intersect({begin, end - begin}, part);
        const auto wanted = bytes.subspan(inside.offset - begin, inside.length);
        if (!is_zero(wanted)) {
          const auto at = std::ranges::find_if(wanted, [](std::byte one) { return one != std::byte{0}; });
          co_return unexpected(
              difference_at(target, inside.offset + static_cast<std::uint64_t>(at - wanted.begin())));
        }
        part = {inside.end(), part.end() - inside.end()};
      }
    }
    const std::uint64_t end = extents.back().end();
    range = {end, range.end() - end};
  }
  co_return Result<void>{};
}

}  // namespace diskferry
