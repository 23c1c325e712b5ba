// Opening, sending, losing, opening again. Zeroing and what is known of holes are in storage_zero.cpp.
#include "drivers/gluster/storage.hpp"

#include "drivers/gluster/status.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::gluster {
namespace {

/// The library itself looks for a lost brick every three seconds.
constexpr Duration reopen_pause_min = std::chrono::milliseconds(50);
constexpr Duration reopen_pause_max = std::chrono::milliseconds(500);
/// Of who presses Ctrl-C.
constexpr Duration ending_limit = std::chrono::seconds(1);
constexpr Duration close_limit = std::chrono::seconds(2);
constexpr Duration abandoned_pause = std::chrono::milliseconds(10);

/// The file is gone for good, or nobody lets us in any more: waiting does not help.
bool is_final(ErrorKind kind) noexcept {
  return kind != ErrorKind::gone && kind != ErrorKind::timed_out && kind != ErrorKind::io &&
         kind != ErrorKind::in_use;
}

}  // namespace

Storage::Storage(DriverContext& context, Endpoint endpoint, Purpose purpose)
    : context_(context), endpoint_(std::move(endpoint)), purpose_(purpose) {}

// --- standing and falling ---------------------------------------------------------------------------------

Task<Result<void>> Storage::open() {
  while (true) {
    DISKFERRY_CO_TRY(const Mount mounted, co_await mount(context_.clock, endpoint_));
    volume_ = mounted.volume;
    auto opened = co_await with_deadline(context_.clock, endpoint_.connect_limit, "open",
                                         open_file(volume_, endpoint_, purpose_, 0));
    if (opened) {
      facts_ = (*opened)->facts();
      size_bytes_ = facts_.size_bytes;
      punches_ = facts_.can_discard;
      seeks_ = facts_.can_seek;
      file_ = std::move(*opened);
      co_return Result<void>{};
    }
    const ErrorKind kind = opened.error().kind();
    if (!mounted.was_there || (kind != ErrorKind::gone && kind != ErrorKind::timed_out))
      co_return unexpected(std::move(opened).error());
    // A mount that is kept may be of a volume that was made anew since.
    forget_mount(volume_);
    volume_.reset();
  }
}

Task<void> Storage::close() {
  OpenFilePtr last;
  {
    std::lock_guard lock(guard_);
    last = std::exchange(file_, nullptr);
  }
  // A request that was cancelled may still hold it, and closes it when it ends.
  if (last.use_count() == 1)
    (void)co_await with_deadline(context_.clock, close_limit, "close", last->close());
  last.reset();
  volume_.reset();
  trim_mounts();
}

Result<OpenFilePtr> Storage::current() {
  std::lock_guard lock(guard_);
  if (gone_) return unexpected(*gone_);
  return file_;
}

void Storage::retire(const OpenFilePtr& file) {
  std::lock_guard lock(guard_);
  if (file_ == file) file_.reset();
}

Error Storage::declare_gone(Error error) {
  std::lock_guard lock(guard_);
  if (!gone_) gone_ = std::move(error);
  return *gone_;
}

TimePoint Storage::give_up_time() const {
  return Clock::after(context_.clock.now(), endpoint_.reconnect_limit);
}

Task<Result<OpenFilePtr>> Storage::file(TimePoint until) {
  DISKFERRY_CO_TRY(OpenFilePtr standing, current());
  if (standing) co_return standing;
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await opening_.lock());
  DISKFERRY_CO_TRY(OpenFilePtr opened, current());
  if (opened) co_return opened;
  co_return co_await reopen(until);
}

Result<void> Storage::check_same(const FileFacts& now) const {
  if (now.id == facts_.id && now.size_bytes >= facts_.size_bytes) return {};
  return unexpected(
      fail(ErrorKind::gone, "reconnect", endpoint_.name)
          .why(now.id == facts_.id ? "the file is smaller than it was" : "another file has this name now")
          .remedy("check which file is there, then start again"));
}

Task<Result<OpenFilePtr>> Storage::reopen(TimePoint until) {
  for (Duration pause = reopen_pause_min;; pause = std::min(2 * pause, reopen_pause_max)) {
    if (is_ending_.load(std::memory_order_relaxed))
      until = std::min(until, Clock::after(context_.clock.now(), ending_limit));
    auto opened = co_await with_deadline(context_.clock, endpoint_.connect_limit, "open",
                                         open_file(volume_, endpoint_, purpose_, generation_ + 1));
    if (opened) {
      if (auto same = check_same((*opened)->facts()); !same)
        co_return unexpected(declare_gone(std::move(same).error()));
      std::lock_guard lock(guard_);
      ++generation_;
      file_ = std::move(*opened);
      co_return file_;
    }
    const Error& error = opened.error();
    if (error.kind() == ErrorKind::cancelled) co_return opened;
    if (error.kind() == ErrorKind::not_found)
      co_return unexpected(declare_gone(fail(ErrorKind::gone, "reconnect", endpoint_.name)
                                            .why("the file was removed while it was in use")
                                            .remedy("check which file is there, then start again")));
    if (is_final(error.kind())) co_return unexpected(declare_gone(error.with_step("reconnect")));
    if (context_.clock.now() >= until)
      co_return unexpected(
          declare_gone(fail(ErrorKind::gone, "reconnect", endpoint_.name)
                           .why(fmt::format("the file's brick is lost and does not come back ({})",
                                            error.why().empty() ? error.message() : error.why()))
                           .remedy("check the bricks with 'gluster volume status', then start again")));
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(pause));
  }
}

// --- requests ---------------------------------------------------------------------------------------------

Task<Result<void>> Storage::wait_for_abandoned(const Call& call) {
  const TimePoint until = give_up_time();
  while (abandoned_->load() != 0) {
    if (context_.clock.now() >= until || is_ending_.load(std::memory_order_relaxed))
      co_return unexpected(fail(ErrorKind::gone, std::string(to_string(call.verb)), endpoint_.name)
                               .why("an earlier change, which was cancelled, is still under way"));
    DISKFERRY_CO_CHECK(co_await context_.clock.sleep_for(abandoned_pause));
  }
  co_return Result<void>{};
}

Task<Result<Storage::Done>> Storage::perform(Call call) {
  const std::string verb(to_string(call.verb));
  const std::uint64_t length = call.length + call.into.size() + call.from.size();
  std::optional<TimePoint> lost_until;
  if (call.verb != Verb::read && call.verb != Verb::flush)
    DISKFERRY_CO_CHECK(co_await wait_for_abandoned(call));
  for (bool was_sent = false;; was_sent = true) {
    DISKFERRY_CO_TRY(const OpenFilePtr file, co_await this->file(lost_until.value_or(give_up_time())));
    if (was_sent) repeated_.fetch_add(1, std::memory_order_relaxed);
    const Answer answer = co_await file->perform(context_.clock, call, abandoned_);
    if (answer.is_cancelled) co_return unexpected(cancelled_error(verb, endpoint_.name));
    if (answer.number == 0) co_return Done{.bytes = answer.bytes, .generation = file->generation()};
    if (!is_lost(answer.number)) {
      Error error = call_error(answer.number, verb, endpoint_.name);
      co_return unexpected(std::move(error).at(call.offset, length));
    }
    retire(file);
    if (!lost_until) {
      lost_until = give_up_time();
    } else if (context_.clock.now() >= *lost_until) {
      co_return unexpected(fail(ErrorKind::gone, verb, endpoint_.name)
                               .why("the file's brick is lost again and again")
                               .remedy("check the bricks and the network"));
    }
  }
}

Task<Result<void>> Storage::change(Call call) {
  DISKFERRY_CO_TRY(const Done done, co_await perform(call));
  unflushed_.written(done.generation);
  co_return Result<void>{};
}

Task<Result<void>> Storage::read(std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    DISKFERRY_CO_TRY(const Done done, co_await perform({.verb = Verb::read, .offset = offset, .into = into}));
    if (done.bytes == 0 || done.bytes > into.size())
      co_return unexpected(fail(ErrorKind::io, "read", endpoint_.name)
                               .why("the file ends before its size when it was opened")
                               .remedy("nobody may change the size of the disk while it is in use")
                               .at(offset, into.size()));
    offset += done.bytes;
    into = into.subspan(done.bytes);
  }
  co_return Result<void>{};
}

void Storage::grown_to(std::uint64_t end) noexcept {
  std::uint64_t size = size_bytes();
  while (size < end && !size_bytes_.compare_exchange_weak(size, end, std::memory_order_acq_rel)) {
  }
}

Task<Result<void>> Storage::write(std::uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    DISKFERRY_CO_TRY(const Done done,
                     co_await perform({.verb = Verb::write, .offset = offset, .from = from}));
    if (done.bytes == 0 || done.bytes > from.size())
      co_return unexpected(
          fail(ErrorKind::protocol, "write", endpoint_.name)
              .why(fmt::format("the brick says that it wrote {} of {} bytes", done.bytes, from.size())));
    unflushed_.written(done.generation);
    offset += done.bytes;
    grown_to(offset);
    from = from.subspan(done.bytes);
  }
  co_return Result<void>{};
}

Task<Result<void>> Storage::flush() {
  const auto lost = [this] {
    return fail(ErrorKind::gone, "flush", endpoint_.name)
        .why(
            "a brick was lost, or failed to flush, and may not have what it had acknowledged since the last "
            "flush")
        .remedy("open the file again and repeat the writes since then");
  };
  // Who comes while another one flushes may have writes that its flush does not cover.
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await flushing_.lock());
  if (unflushed_.is_lost()) co_return unexpected(lost());
  if (unflushed_.is_empty()) co_return Result<void>{};
  unflushed_.begin_commit();
  auto done = co_await perform({.verb = Verb::flush});
  if (!done) {
    const ErrorKind kind = done.error().kind();
    unflushed_.failed();
    if (kind != ErrorKind::cancelled && kind != ErrorKind::gone) unflushed_.lose();
    co_return unexpected(std::move(done).error());
  }
  if (!unflushed_.committed(done->generation)) co_return unexpected(lost());
  co_return Result<void>{};
}

}  // namespace diskferry::gluster
