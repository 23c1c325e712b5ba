// See copy_job.hpp. The order of steps is the safety of a copy: everything that can be refused is refused
// before the target is touched, and the ledger stands before the first byte is written.
#include "gateway/copy/copy_job.hpp"

#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/copy/checkpoint.hpp"
#include "gateway/copy/engine.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/ledger.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/copy/verify.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace asio = boost::asio;
namespace {

/// How long a copy that ends early may take to make its last work durable.
constexpr Duration last_checkpoint_limit = std::chrono::seconds(30);
/// How often a copy goes on by itself after a server came back with less than it had acknowledged.
constexpr unsigned losses_max = 5;
/// The ends of a disk hold what boots it and what finds its partitions: they are always compared.
constexpr std::uint64_t end_bytes = 1 * mib;
/// Of an image that was copied from its start to its end, this much of the file holds them and the tables
/// that lead there. (To forget all of 1.4 GiB takes 0.1 s, and the first guest would read it from the disk.)
constexpr std::uint64_t image_end_bytes = 16 * mib;

double seconds(Duration time) {
  return std::chrono::duration<double>(time).count();
}

class CopyJob {
 public:
  CopyJob(DriverContext& context, CopyRequest request, ProgressSink* progress)
      : context_(context), request_(std::move(request)), progress_(progress) {}

  Task<Result<CopyReport>> run() {
    begin_ = context_.clock.now();
    report_.source = request_.source.without_secrets();
    report_.target = request_.target.without_secrets();
    auto done = co_await run_steps();
    // Whatever happened, and also when cancelled, both sides are closed and the first cause is kept.
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    auto closed = co_await close_all();
    if (!done && created_ && !ledger_made_) (void)co_await remove_created_target(context_, request_.target);
    if (done && !closed) done = std::move(closed);
    report_.total_s = seconds(context_.clock.now() - begin_);
    if (done) co_return std::move(report_);
    const Error& error = done.error();
    report_.failure = {.kind = error.kind(),
                       .message = printable(error.message()),
                       .has_begun = has_begun(),
                       .can_resume = ledger_made_ && has_begun(),
                       .kept_bytes = ledger_made_ ? kept_bytes() : 0};
    co_return unexpected(std::move(done).error());
  }

  /// Of a job that has failed.
  CopyReport take_report() { return std::move(report_); }

  /// Both sides and the ledger were open.
  bool has_begun() const { return checkpointer_.has_value(); }

 private:
  Task<Result<void>> run_steps() {
    show("plan", 0, 0);
    DISKFERRY_CO_CHECK(co_await open_source());
    DISKFERRY_CO_CHECK(co_await open_target());
    DISKFERRY_CO_CHECK(co_await open_ledger());
    report_.plan_s = seconds(context_.clock.now() - begin_);
    if (auto done = co_await transfer(); !done)
      co_return unexpected(co_await give_up(std::move(done).error()));
    if (auto done = co_await finish(); !done) co_return unexpected(co_await give_up(std::move(done).error()));
    co_return Result<void>{};
  }

  Task<Result<void>> open_source() {
    request_.source_options.top_only = request_.top_only;
    auto opened = co_await open_image(context_, request_.source, request_.source_options);
    if (!opened) co_return unexpected(std::move(opened).error().in("open the source"));
    source_.emplace(std::move(*opened));
    put_faults_in_front(*source_, request_.source_faults);
    layer_uris_ = source_->storages();
    DISKFERRY_CO_TRY(layers_, co_await look_at_layers(context_, layer_uris_));
    report_.source_format = source_->layers().front().format;
    if (request_.target_format.empty()) request_.target_format = format_for_target(request_.target);
    report_.target_format = request_.target_format;
    report_.size_bytes = source_->device().size_bytes();
    report_.finds_holes_by_reading = !source_->device().info().can_report_extents;
    co_return Result<void>{};
  }

  void put_faults_in_front(Image& image, const FaultPlan& faults) {
    if (faults.rules.empty()) return;
    image.put_in_front(checked(
        make_fault_device(image.shared_device(), std::make_shared<FaultControl>(faults), context_.clock)));
  }

  Task<Result<void>> open_target() {
    DISKFERRY_CO_TRY(TargetState state, co_await look_at_target(context_, request_));
    DISKFERRY_CO_CHECK(refuse_same_storage(layers_, state, request_.target));
    DISKFERRY_CO_TRY(const TargetAction action, decide_copy_target(state, request_));
    if (action == TargetAction::go_on) {
      is_resumed_ = true;
    } else if (action != TargetAction::open) {
      const bool is_new = !state.volume.exists;
      auto made = co_await create_target(context_, request_, source_->device().size_bytes());
      if (!made) {
        // A format's driver may have made the file and failed on its content.
        created_ = is_new && made.error().kind() != ErrorKind::already_exists;
        co_return unexpected(std::move(made).error().in("create the target"));
      }
      created_ = is_new;
    }
    if (action == TargetAction::go_on || action == TargetAction::open)
      target_identity_ = std::move(state.volume.identity);
    ImageOpenOptions options;
    options.format = request_.target_format;
    options.writable = true;
    options.connections = request_.target_connections;
    options.allow_backing = request_.source_options.allow_backing;
    options.compression = request_.compression;
    auto opened = co_await open_image(context_, request_.target, std::move(options));
    if (!opened) co_return unexpected(std::move(opened).error().in("open the target"));
    target_.emplace(std::move(*opened));
    put_faults_in_front(*target_, request_.target_faults);
    if (const std::string unlike =
            sectors_unlike({source_->device(), target_->device()}, request_.target_format);
        !unlike.empty())
      report_.warnings.push_back(unlike);
    const std::uint64_t has_bytes = target_->device().size_bytes();
    total_bytes_ = has_bytes;
    report_.target_size_bytes = has_bytes;
    if (has_bytes < report_.size_bytes)
      co_return unexpected(too_small(request_.target, has_bytes, report_.size_bytes));
    if (target_->device().info().is_read_only)
      co_return unexpected(fail(ErrorKind::read_only, "open the target", report_.target));
    co_return Result<void>{};
  }

  Task<Result<void>> open_ledger() {
    if (!target_identity_) {
      DISKFERRY_CO_TRY(VolumeFacts made, co_await look_at_volume(context_, request_.target, {}));
      target_identity_ = std::move(made.identity);
    }
    LedgerHeader header{.source = noted_layers(layers_),
                        .source_bytes = report_.size_bytes,
                        .target = request_.target.to_string(),
                        .target_format = report_.target_format,
                        .target_identity = *target_identity_,
                        .target_bytes = target_->device().size_bytes(),
                        .options = describe_options(request_)};
    const std::string path = ledger_path(request_.target);
    if (is_resumed_) {
      auto loaded = co_await Ledger::load(context_, path);
      // Nothing was done yet, or all of it: begin again, where a target that exists may be used as it is.
      if (!loaded && loaded.error().kind() == ErrorKind::not_found &&
          request_.existing == CopyRequest::Existing::use)
        co_return co_await create_ledger(path, std::move(header));
      if (!loaded && loaded.error().kind() == ErrorKind::not_found)
        co_return unexpected(fail(ErrorKind::already_exists, "resume", report_.target)
                                 .why("there is no ledger of an interrupted copy (" + printable(path) + ")")
                                 .remedy("copy from the start with --overwrite"));
      if (!loaded && loaded.error().kind() == ErrorKind::corrupt)
        co_return unexpected(
            std::move(loaded).error().in("resume").remedy("copy from the start with --overwrite"));
      if (!loaded) co_return unexpected(std::move(loaded).error().in("resume"));
      if (const std::string why = difference(loaded->header, header); !why.empty())
        co_return unexpected(fail(ErrorKind::unsupported, "resume", report_.target)
                                 .why(why)
                                 .remedy("copy from the start with --overwrite"));
      ledger_ = std::move(loaded->ledger);
      done_ = std::move(loaded->done);
      report_.resumed_bytes = done_.bytes();
      ledger_made_ = true;
      co_return Result<void>{};
    }
    co_return co_await create_ledger(path, std::move(header));
  }

  Task<Result<void>> create_ledger(std::string path, LedgerHeader header) {
    auto made = co_await Ledger::create(context_, std::move(path), std::move(header));
    if (made) {
      ledger_ = std::move(*made);
      ledger_made_ = true;
    } else if (made.error().kind() == ErrorKind::in_use) {
      co_return unexpected(std::move(made).error());
    } else {
      report_.warnings.push_back("this copy could not be resumed, were it interrupted: " +
                                 made.error().message());
    }
    co_return Result<void>{};
  }

  EngineHooks hooks() {
    return {
        .finished = [this](const Piece& piece) { checkpointer_->finished(piece); },
        .progress =
            [this] { show("copy", report_.resumed_bytes + engine_->counters().done_bytes, total_bytes_); },
        .room = &checkpointer_->room()};
  }

  Task<Result<void>> transfer() {
    const TimePoint begin = context_.clock.now();
    const Tuning tuning = tune(request_, {source_->device(), target_->device()}, request_.target_format,
                               context_.reactors.size());
    report_.request_bytes = tuning.plan.request_bytes;
    report_.requests = tuning.engine.requests;
    report_.verify = verify_;
    plan_.emplace(CopyPlan::Devices{source_->device(), &target_->device()}, tuning.plan, std::move(done_));
    const CheckpointOptions defaults;
    checkpointer_.emplace(
        context_, target_->device(), ledger_.get(),
        CheckpointOptions{
            .bytes = request_.checkpoint_bytes != 0 ? request_.checkpoint_bytes : defaults.bytes,
            .verify = verify_ == VerifyLevel::storage,
            .cache_path = request_.target.is_file() ? request_.target.path() : std::string(),
            .is_raw = request_.target_format == "raw"});
    engine_.emplace(context_, CopyEngine::Devices{source_->device(), target_->device()}, tuning.engine,
                    hooks());

    // Checkpoints go on beside the copying; when one fails there is no point in copying on.
    TaskGroup copying(context_.reactors[0]);
    TaskGroup checkpoints(context_.reactors.back());
    copying.spawn(copy_all());
    checkpoints.spawn(checkpoint_until_done(copying));
    auto copied = co_await copying.join();
    checkpoints.cancel();
    auto kept = co_await checkpoints.join();
    report_.copy_s = seconds(context_.clock.now() - begin);
    report_.background_flush_s = seconds(checkpointer_->time_flushing());
    report_.background_verify_s = seconds(checkpointer_->time_verifying()) +
                                  1e-9 * static_cast<double>(engine_->counters().read_back_ns);
    if (!kept && kept.error().kind() != ErrorKind::cancelled) co_return kept;
    co_return copied;
  }

  Task<Result<void>> copy_all() { co_return co_await engine_->run(*plan_); }
  Task<Result<void>> checkpoint_until_done(TaskGroup& copying) {
    auto done = co_await checkpointer_->run();
    if (!done) copying.cancel();
    co_return done;
  }

  Task<Result<void>> finish() {
    const TimePoint begin = context_.clock.now();
    show("flush", total_bytes_, total_bytes_);
    DISKFERRY_CO_CHECK(co_await checkpointer_->commit());
    report_.flush_s = seconds(context_.clock.now() - begin);
    const TimePoint verify_begin = context_.clock.now();
    show("verify", total_bytes_, total_bytes_);
    DISKFERRY_CO_CHECK(co_await verify_ends());
    report_.verify_s = seconds(context_.clock.now() - verify_begin);
    count_up();
    DISKFERRY_CO_TRY(const auto layers_now, co_await note_layers(context_, layer_uris_));
    report_.changed_layers = changed_layers(noted_layers(layers_), layers_now);
    report_.source_allocated_bytes = co_await allocated_bytes(context_, layer_uris_);
    report_.target_allocated_bytes = co_await allocated_bytes(context_, {request_.target});
    // A copy of a source that changed cannot be resumed either.
    if (ledger_) DISKFERRY_CO_CHECK(co_await ledger_->remove());
    co_return Result<void>{};
  }

  /// What was done, into the report. Both sides are open.
  void count_up() {
    const EngineCounters& counters = engine_->counters();
    report_.read_bytes = counters.read_bytes;
    report_.written_bytes = counters.written_bytes;
    report_.zeroed_bytes = counters.zeroed_bytes;
    report_.skipped_bytes = counters.skipped_bytes;
    report_.verified_bytes = counters.verified_bytes + checkpointer_->verified_bytes();
    report_.checkpoints = checkpointer_->commits();
    report_.retries = source_->device().repeated_requests();
    if (target_) report_.retries += target_->device().repeated_requests();
  }
  std::uint64_t kept_bytes() const {
    return report_.resumed_bytes + (checkpointer_ ? checkpointer_->durable_bytes() : 0);
  }

  /// The first and the last MiB against the source, through a fresh opening where that is possible, past the
  /// page cache.
  Task<Result<void>> verify_ends() {
    if (request_.top_only || report_.size_bytes == 0) co_return Result<void>{};
    BlockDevice* device = &target_->device();
    if (request_.target.is_file()) {
      auto closed = co_await close(target_);
      if (!closed) co_return unexpected(std::move(closed).error().in("close the target"));
      if (request_.target_format == "raw") {
        std::vector<Range> ends = {
            {0, end_bytes},
            {report_.size_bytes - std::min(report_.size_bytes, 2 * end_bytes), 2 * end_bytes}};
        co_await drop_page_cache(context_, request_.target.path(), std::move(ends));
      } else {
        co_await drop_page_cache_at_ends(context_, request_.target.path(), image_end_bytes);
      }
      ImageOpenOptions options;
      options.format = request_.target_format;
      options.allow_backing = request_.source_options.allow_backing;
      auto opened = co_await open_image(context_, request_.target, std::move(options));
      if (!opened) co_return unexpected(std::move(opened).error().in("open the target again"));
      target_.emplace(std::move(*opened));
      device = &target_->device();
    }
    const std::uint64_t block =
        std::max({source_->device().info().block_bytes, device->info().block_bytes, std::uint32_t{4096}});
    const std::uint64_t size = report_.size_bytes;
    const std::uint64_t first_end = std::min(size, end_bytes);
    DISKFERRY_CO_CHECK(co_await verify_end({0, first_end}, *device));
    const std::uint64_t last = align_down(size > end_bytes ? size - end_bytes : 0, block);
    if (size > first_end) DISKFERRY_CO_CHECK(co_await verify_end({last, size - last}, *device));
    co_return Result<void>{};
  }

  Task<Result<void>> verify_end(Range range, BlockDevice& device) {
    // Where the target goes on after the source, its last block does too.
    const std::uint64_t target_end =
        std::min(align_up(range.end(), device.info().block_bytes), device.size_bytes());
    const std::size_t wanted = std::max(range.length, target_end - range.offset);
    DISKFERRY_CO_TRY(Buffer expected, co_await context_.buffers.acquire(wanted));
    DISKFERRY_CO_TRY(Buffer found, co_await context_.buffers.acquire(wanted));
    DISKFERRY_CO_CHECK(co_await source_->device().read(range.offset, expected.span().first(range.length)));
    DISKFERRY_CO_CHECK(co_await device.read(range.offset, found.span().first(target_end - range.offset)));
    const std::size_t same =
        first_difference(expected.span().first(range.length), found.span().first(range.length));
    if (same < range.length) co_return unexpected(difference_at(device, range.offset + same));
    co_return Result<void>{};
  }

  /// The end of a copy that does not succeed: what is finished becomes durable, and the message says so.
  Task<Error> give_up(Error error) {
    co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
    // Who wants to stop does not wait for a server that is away, whatever the devices still have to do.
    if (error.kind() == ErrorKind::cancelled) {
      if (source_) source_->device().stop_waiting();
      if (target_) target_->device().stop_waiting();
    }
    if (checkpointer_ && target_ && error.kind() != ErrorKind::mismatch)
      (void)co_await with_deadline(context_.clock, last_checkpoint_limit, "last checkpoint",
                                   checkpointer_->commit());
    if (engine_) count_up();
    const std::uint64_t kept = kept_bytes();
    if (error.kind() == ErrorKind::cancelled) error = cancelled_error("copy");  // not whichever step it met
    // What cannot be gone on with is of no use to anybody: a target that we made goes too, see run().
    const bool is_final = error.kind() == ErrorKind::mismatch || error.kind() == ErrorKind::corrupt;
    if (ledger_ && is_final) {
      (void)co_await ledger_->remove();
      ledger_made_ = false;
    }
    if (error.kind() == ErrorKind::mismatch && created_)
      co_return std::move(error).remedy("the new target is removed; check its storage, then copy again");
    if (error.kind() == ErrorKind::corrupt && created_)
      co_return std::move(error).remedy(
          "the new target is removed; repair or restore the image, then copy again");
    if (is_final) co_return error;
    if (!ledger_)
      co_return std::move(error).remedy(created_ ? "the new target is removed; copy again"
                                                 : "copy again with --overwrite");
    const std::string_view first = error.kind() == ErrorKind::no_space ? "free space, then " : "";
    co_return std::move(error).remedy(fmt::format("{} of {} copied and kept; {}run again with --resume",
                                                  format_bytes(kept), format_bytes(report_.size_bytes),
                                                  first));
  }

  static Task<Result<void>> close(std::optional<Image>& image) {
    if (!image) co_return Result<void>{};
    auto closed = co_await image->close();
    image.reset();
    co_return closed;
  }
  Task<Result<void>> close_all() {
    auto target_closed = co_await close(target_);
    auto source_closed = co_await close(source_);
    if (!target_closed) co_return unexpected(std::move(target_closed).error().in("close the target"));
    co_return source_closed;
  }

  void show(std::string_view phase, std::uint64_t done, std::uint64_t total) {
    if (progress_ != nullptr)
      progress_->update(
          {.subject = report_.target, .phase = phase, .bytes_done = done, .bytes_total = total});
  }

  DriverContext& context_;
  CopyRequest request_;
  const VerifyLevel verify_ = request_.verify.value_or(usual_verification(request_.target));
  ProgressSink* const progress_;
  CopyReport report_;
  std::uint64_t total_bytes_ = 0;  // of the target
  TimePoint begin_{};
  std::optional<Image> source_;
  std::optional<Image> target_;
  std::vector<ImageUri> layer_uris_;
  std::vector<SourceLayer> layers_;
  std::optional<std::string> target_identity_;  // of a target that was there
  bool created_ = false;
  bool is_resumed_ = false;
  bool ledger_made_ = false;
  RangeSet done_;
  std::unique_ptr<Ledger> ledger_;
  std::optional<CopyPlan> plan_;
  std::optional<Checkpointer> checkpointer_;
  std::optional<CopyEngine> engine_;
};

/// The first error says what was lost and what is kept, the second why that could not be mended: that the
/// server is still away, say, which the first may not know.
Error with_failed_attempt(Error first, const Error& attempt) {
  if (attempt.kind() == ErrorKind::cancelled) return first;
  const std::string reason = attempt.why().empty() ? attempt.message() : attempt.why();
  std::string why = first.why();
  why += fmt::format("{}another attempt failed ({})", why.empty() ? "" : "; ", reason);
  return std::move(first).why(std::move(why));
}

}  // namespace

/// A server that ends between writes and their flush may have lost what it acknowledged: the driver then
/// fails the flush although it is connected again, and only the copy knows what has to be written once more.
/// The ledger does, so the copy goes on as if it had been run again with --resume.
Task<Result<CopyReport>> copy_image(DriverContext& context, CopyRequest request, ProgressSink* progress,
                                    CopyReport* failed) {
  std::optional<CopyJob> job(std::in_place, context, request, progress);
  auto done = co_await job->run();
  CopyReport last;
  if (!done) last = job->take_report();
  unsigned losses = 0;
  while (!done && job->has_begun() && done.error().kind() == ErrorKind::gone && losses < losses_max) {
    if (co_await is_cancelled()) break;
    CopyRequest rest = request;
    rest.resume = true;
    job.emplace(context, std::move(rest), progress);  // the one before lets go of the ledger
    auto resumed = co_await job->run();
    if (!job->has_begun()) {
      done = unexpected(with_failed_attempt(std::move(done).error(), resumed.error()));
      if (last.failure) last.failure->message = printable(done.error().message());
      break;
    }
    done = std::move(resumed);
    ++losses;
    const std::uint64_t earlier = last.retries + 1;
    if (!done) last = job->take_report();
    (done ? *done : last).retries += earlier;
  }
  if (done && losses > 0)
    done->warnings.push_back(fmt::format(
        "a server was lost with unflushed writes ({}); what was not durable then was copied again",
        losses == 1 ? std::string("once") : fmt::format("{} times", losses)));
  if (!done && failed != nullptr) *failed = std::move(last);
  co_return done;
}

}  // namespace diskferry
