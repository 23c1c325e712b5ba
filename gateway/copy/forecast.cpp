// What a copy would do; see forecast_copy(). Opens the source, and a target that would be used as it is, for
// reading.
#include "diskferry/units.hpp"
#include "gateway/copy/copy_job.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/target.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>

namespace diskferry {
namespace asio = boost::asio;
namespace {

/// How much of the source is read to learn its rate, and for how long at most.
constexpr std::uint64_t sample_bytes_max = 64 * mib;
constexpr Duration sample_time_max = std::chrono::milliseconds(500);

Task<Result<std::optional<double>>> sample_rate(DriverContext& context, BlockDevice& source,
                                                PlanRules rules) {
  CopyPlan plan({source, nullptr}, rules);
  const TimePoint begin = context.clock.now();
  std::uint64_t bytes = 0;
  while (bytes < sample_bytes_max && context.clock.now() - begin < sample_time_max) {
    DISKFERRY_CO_TRY(const auto unit, co_await plan.next());
    if (!unit) break;
    if (unit->kind != WorkKind::copy) continue;
    const Range inside = intersect(unit->range, {0, source.size_bytes()});
    DISKFERRY_CO_TRY(Buffer buffer, co_await context.buffers.acquire(inside.length));
    DISKFERRY_CO_CHECK(co_await source.read(inside.offset, buffer.span()));
    bytes += inside.length;
  }
  const double seconds = std::chrono::duration<double>(context.clock.now() - begin).count();
  if (bytes == 0 || seconds <= 0) co_return std::nullopt;
  co_return static_cast<double>(bytes) / seconds;
}

/// Errors become blockers: the operator wants all of them at once.
class Forecast {
 public:
  Forecast(DriverContext& context, CopyRequest request) : context_(context), request_(std::move(request)) {}

  Task<Result<CopyForecast>> run() {
    auto done = co_await look();
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    if (target_) (void)co_await target_->close();
    if (source_) (void)co_await source_->close();
    if (!done) co_return unexpected(std::move(done).error());
    co_return std::move(forecast_);
  }

 private:
  Task<Result<void>> look() {
    if (request_.target_format.empty()) request_.target_format = format_for_target(request_.target);
    forecast_.target_format = request_.target_format;
    request_.source_options.top_only = request_.top_only;
    auto source = co_await open_image(context_, request_.source, request_.source_options);
    if (!source) {
      block(std::move(source).error().in("open the source"));
    } else {
      source_.emplace(std::move(*source));
      forecast_.size_bytes = source_->device().size_bytes();
      forecast_.source_format = source_->layers().front().format;
      auto layers = co_await look_at_layers(context_, source_->storages());
      if (layers)
        layers_ = *std::move(layers);
      else
        block(std::move(layers).error());
    }
    co_await look_at_target_side();
    if (!source_) co_return Result<void>{};
    BlockDevice& device = source_->device();
    PlanRules rules{.source_bytes = device.size_bytes(), .target_bytes = device.size_bytes()};
    rules.top_only = request_.top_only;
    rules.align_bytes = std::max<std::uint64_t>(512, device.info().block_bytes);
    // A target that is too small is a blocker already; the plan must not look beyond its end.
    BlockDevice* target =
        target_ && target_->device().size_bytes() >= rules.source_bytes ? &target_->device() : nullptr;
    if (target != nullptr) rules.target_bytes = target->size_bytes();
    CopyPlan plan({device, target}, rules);
    DISKFERRY_CO_TRY(forecast_.totals, co_await total(plan));
    DISKFERRY_CO_TRY(forecast_.read_bytes_per_s, co_await sample_rate(context_, device, rules));
    look_at_space();
    warn();
    co_return Result<void>{};
  }

  void look_at_space() {
    if (!forecast_.space_available_bytes) return;
    const bool is_reserved = request_.preallocate == ImageCreateOptions::Preallocate::full;
    const std::uint64_t needed_bytes = is_reserved ? forecast_.size_bytes : forecast_.totals.copy_bytes;
    if (needed_bytes <= *forecast_.space_available_bytes) return;
    const std::string text =
        fmt::format("{}: {} are needed and {} are free", request_.target.to_string(),
                    format_bytes(needed_bytes), format_bytes(*forecast_.space_available_bytes));
    // What is compressed, and what turns out to be zeros, takes less.
    const bool is_certain = is_reserved || (request_.compression == Compression::none && can_tell_holes());
    (is_certain ? forecast_.blockers : forecast_.warnings).push_back(is_certain ? text : text + ", at most");
  }

  bool can_tell_holes() { return source_->device().info().can_report_extents; }

  void warn() {
    if (!can_tell_holes())
      forecast_.warnings.emplace_back(
          "the source cannot tell its holes: all of it is read, and what is zeros is not copied");
    if (forecast_.target_bytes && *forecast_.target_bytes > forecast_.size_bytes)
      forecast_.warnings.push_back(
          fmt::format("the target is larger: its first {} bytes become the disk, the rest will read as zeros",
                      forecast_.size_bytes));
    if (!target_) return;
    if (std::string text = sectors_unlike({source_->device(), target_->device()}, request_.target_format);
        !text.empty())
      forecast_.warnings.push_back(std::move(text));
  }

  Task<void> look_at_target_side() {
    auto state = co_await look_at_target(context_, request_);
    if (!state) {
      block(std::move(state).error());
      co_return;
    }
    if (auto same = refuse_same_storage(layers_, *state, request_.target); !same)
      block(std::move(same).error());
    forecast_.target_exists = state->volume.exists;
    for (const Error& obstacle : state->volume.obstacles) block(obstacle);
    auto action = decide_copy_target(*state, request_);
    if (!action) {
      block(std::move(action).error());
      co_return;
    }
    if (*action == TargetAction::create || *action == TargetAction::replace) {
      forecast_.space_available_bytes = state->volume.free_bytes;
      co_return;
    }
    ImageOpenOptions options;
    options.format = request_.target_format;
    options.allow_backing = request_.source_options.allow_backing;
    auto target = co_await open_image(context_, request_.target, std::move(options));
    if (!target) {
      block(std::move(target).error().in("open the target"));
      co_return;
    }
    target_.emplace(std::move(*target));
    forecast_.target_bytes = target_->device().size_bytes();
    if (*forecast_.target_bytes < forecast_.size_bytes)
      block(too_small(request_.target, *forecast_.target_bytes, forecast_.size_bytes));
  }

  /// Once, whoever finds it: an obstacle can be the reason of a decision, too.
  void block(const Error& error) {
    std::string text = error.message();
    auto& blockers = forecast_.blockers;
    if (std::ranges::find(blockers, text) == blockers.end()) blockers.push_back(std::move(text));
  }

  DriverContext& context_;
  CopyRequest request_;
  CopyForecast forecast_;
  std::vector<SourceLayer> layers_;
  std::optional<Image> source_;
  std::optional<Image> target_;
};

}  // namespace

Task<Result<CopyForecast>> forecast_copy(DriverContext& context, CopyRequest request) {
  Forecast forecast(context, std::move(request));
  co_return co_await forecast.run();
}

}  // namespace diskferry
