// See compare.hpp. Units are handed out in order of offset, so everything before a difference has been handed
// out when it is found: the lowest difference is known once those units have ended.
#include "gateway/copy/compare.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "gateway/copy/engine.hpp"

#include <algorithm>

#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace diskferry {
namespace asio = boost::asio;
namespace {

constexpr std::size_t extents_per_call = 1024;

/// One disk and what is known of its extents from a position on. Beyond the end everything is zeros.
struct Side {
  BlockDevice& device;
  std::vector<Extent> extents;
  std::size_t index = 0;

  /// The extent at `offset`; offsets only grow.
  Task<Result<Extent>> at(std::uint64_t offset) {
    const std::uint64_t size = device.size_bytes();
    if (offset >= size) co_return Extent{.offset = size, .length = UINT64_MAX - size, .reads_zero = true};
    while (index < extents.size() && extents[index].end() <= offset) ++index;
    if (index == extents.size()) {
      const std::uint64_t from = align_down(offset, device.info().block_bytes);
      DISKFERRY_CO_TRY(extents, co_await device.extents({from, size - from}, extents_per_call));
      index = 0;
    }
    co_return extents[index];
  }

  Task<Result<void>> read(Range range, std::span<std::byte> into) {
    const Range inside = intersect(range, {0, device.size_bytes()});
    const auto wanted = into.first(inside.length);
    std::ranges::fill(into.subspan(wanted.size()), std::byte{0});
    if (wanted.empty()) co_return Result<void>{};
    if (auto done = device.try_read(range.offset, wanted)) co_return std::move(*done);
    co_return co_await device.read(range.offset, wanted);
  }
};

class Comparer {
 public:
  Comparer(DriverContext& context, BlockDevice& a, BlockDevice& b, CompareOptions options,
           ProgressSink* progress)
      : context_(context), a_{a, {}}, b_{b, {}}, options_(options), progress_(progress) {
    size_bytes_ = std::max(a.size_bytes(), b.size_bytes());
    options_.request_bytes =
        std::max<std::uint64_t>(options_.request_bytes, std::max(a.info().block_bytes, b.info().block_bytes));
  }

  Task<Result<Comparison>> run() {
    TaskGroup tasks(co_await asio::this_coro::executor);
    for (unsigned i = 0; i < options_.requests; ++i)
      tasks.spawn_on(context_.reactors[i % context_.reactors.size()], work_off());
    DISKFERRY_CO_CHECK(co_await tasks.join());
    Comparison result;
    result.a_bytes = a_.device.size_bytes();
    result.b_bytes = b_.device.size_bytes();
    result.compared_bytes = compared_bytes_;
    result.skipped_bytes = skipped_bytes_;
    if (const std::uint64_t first = first_.load(); first != UINT64_MAX) result.first_difference = first;
    if (options_.strict_size && result.a_bytes != result.b_bytes)
      result.first_difference =
          std::min(result.first_difference.value_or(UINT64_MAX), std::min(result.a_bytes, result.b_bytes));
    result.is_same = !result.first_difference;
    co_return result;
  }

 private:
  /// The next unit to read on both sides; empty at the end. Small steps over shared zeros happen in here.
  Task<Result<Range>> next() {
    DISKFERRY_CO_TRY(const auto lock, co_await handing_out_.lock());
    while (offset_ < size_bytes_ && offset_ < first_.load()) {
      if (co_await is_cancelled()) co_return unexpected(cancelled_error("compare"));
      DISKFERRY_CO_TRY(const Extent a, co_await a_.at(offset_));
      DISKFERRY_CO_TRY(const Extent b, co_await b_.at(offset_));
      const std::uint64_t end = std::min({a.end(), b.end(), size_bytes_});
      if (a.reads_zero && b.reads_zero) {
        skipped_bytes_ += end - offset_;
        offset_ = end;
        continue;
      }
      // Always a whole aligned unit: what is zero on both sides in it costs less than a request of its own.
      const std::uint64_t begin = align_down(offset_, options_.request_bytes);
      const std::uint64_t block = std::max(a_.device.info().block_bytes, b_.device.info().block_bytes);
      const std::uint64_t from = align_down(offset_, block);
      offset_ = std::min(begin + options_.request_bytes, size_bytes_);
      co_return Range{from, offset_ - from};
    }
    co_return Range{};
  }

  Task<Result<void>> work_off() {
    const Executor executor = co_await asio::this_coro::executor;
    while (true) {
      if (co_await is_cancelled()) co_return unexpected(cancelled_error("compare"));
      DISKFERRY_CO_TRY(const Range range, co_await next());
      if (range.empty()) co_return Result<void>{};
      if (auto done = co_await compare_range(range); !done) {
        lower_to(0);  // nobody goes on
        co_return done;
      }
      co_await asio::post(executor, asio::use_awaitable_t<Executor>{});
    }
  }

  Task<Result<void>> compare_range(Range range) {
    DISKFERRY_CO_TRY(Buffer buffer, co_await context_.buffers.acquire(range.length * 2));
    const auto a = buffer.span().first(range.length);
    const auto b = buffer.span().subspan(range.length, range.length);
    DISKFERRY_CO_CHECK(co_await a_.read(range, a));
    DISKFERRY_CO_CHECK(co_await b_.read(range, b));
    if (const std::size_t same = first_difference(a, b); same < range.length) lower_to(range.offset + same);
    compared_bytes_ += range.length;
    if (progress_ != nullptr)
      progress_->update({.subject = a_.device.info().name,
                         .phase = "verify",
                         .bytes_done = compared_bytes_ + skipped_bytes_,
                         .bytes_total = size_bytes_});
    co_return Result<void>{};
  }

  void lower_to(std::uint64_t offset) {
    std::uint64_t known = first_.load();
    while (offset < known && !first_.compare_exchange_weak(known, offset)) {
    }
  }

  DriverContext& context_;
  Side a_;
  Side b_;
  CompareOptions options_;
  ProgressSink* const progress_;
  std::uint64_t size_bytes_ = 0;
  AsyncMutex handing_out_;
  std::uint64_t offset_ = 0;  // guarded by handing_out_
  std::atomic<std::uint64_t> first_ = UINT64_MAX;
  std::atomic<std::uint64_t> compared_bytes_ = 0;
  std::atomic<std::uint64_t> skipped_bytes_ = 0;
};

}  // namespace

Task<Result<Comparison>> compare(DriverContext& context, BlockDevice& a, BlockDevice& b,
                                 CompareOptions options, ProgressSink* progress) {
  Comparer comparer(context, a, b, options, progress);
  co_return co_await comparer.run();
}

}  // namespace diskferry
