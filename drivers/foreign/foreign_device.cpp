#include "drivers/foreign/foreign_device.hpp"

#include "drivers/nbd/nbd_driver.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::foreign {
namespace {

/// For another child to start and open a local image.
constexpr Duration restart_limit = std::chrono::seconds(10);
/// What the child needs beyond what it grants the server.
constexpr Duration child_margin = std::chrono::seconds(10);
constexpr Duration first_pause = std::chrono::milliseconds(100);
constexpr Duration pause_max = std::chrono::seconds(2);
constexpr Duration ending_limit = std::chrono::seconds(1);

std::string seconds_text(Duration duration) {
  return fmt::format("{:.3f}", std::chrono::duration<double>(duration).count());
}

/// qemu-nbd closes the connection where it cannot read on in the middle of an answer: then NBD's client says
/// that it is gone.
bool may_pass(ErrorKind kind) noexcept {
  return kind == ErrorKind::io || kind == ErrorKind::timed_out || kind == ErrorKind::gone;
}

}  // namespace

ForeignDevice::ForeignDevice(DriverContext& context, ForeignPlan plan,
                             std::vector<std::unique_ptr<QemuNbd>> children)
    : context_(context), plan_(std::move(plan)), children_(std::move(children)) {
  // Whoever reads through one that was started again has lost its connection.
  for (std::size_t i = 0; i + 1 < children_.size(); ++i)
    children_[i]->on_restart([above = children_[i + 1].get()] { above->ask_restart(); });
}

Task<Result<void>> ForeignDevice::open() {
  DISKFERRY_CO_TRY(ImageUri uri, ImageUri::parse("nbd+unix:///"));
  uri.set_query("socket", children_.back()->socket_path());
  uri.set_query("connect-timeout", seconds_text(plan_.open_limit));
  uri.set_query("reconnect-timeout", seconds_text(plan_.retry_limit + restart_limit));
  uri.set_query("stall-timeout", seconds_text(plan_.stall_limit + child_margin));
  auto opened = co_await nbd_driver.open(context_, std::move(uri), {.connections = plan_.connections});
  if (!opened) {
    if (auto dead = death()) co_return unexpected(*std::move(dead));
    if (opened.error().kind() == ErrorKind::timed_out)
      co_return unexpected(fail(ErrorKind::timed_out, "open", plan_.name)
                               .why(fmt::format("QEMU did not open it within {} seconds",
                                                std::chrono::duration<double>(plan_.open_limit).count()))
                               .remedy("the image may be made to take for ever, or a server may not answer"));
    co_return unexpected(std::move(opened).error().object(plan_.name));
  }
  nbd_ = *std::move(opened);
  // Nobody waits for what will not come back.
  for (const auto& child : children_) child->on_end([nbd = nbd_.get()] { nbd->stop_waiting(); });
  for (const auto& child : children_) child->opened();
  info_ = nbd_->info();
  info_.name = plan_.name;
  if (plan_.is_one_at_a_time) info_.parallel_requests = 2;  // the next one waits in its turn
  co_return Result<void>{};
}

template <class T, class Once>
Task<Result<T>> ForeignDevice::attempt(const Once& once) {
  const std::uint64_t given_up = given_up_.load(std::memory_order_relaxed);
  AsyncMutex::Lock mine;
  if (plan_.is_one_at_a_time) {
    DISKFERRY_CO_TRY(mine, co_await turn_.lock());
  }
  if (given_up != given_up_.load(std::memory_order_relaxed))
    co_return unexpected(fail(ErrorKind::gone, "read", plan_.name).why("the server does not answer"));
  if (plan_.answer_limit == Duration::max()) co_return co_await once();
  co_return co_await with_deadline(context_.clock, plan_.answer_limit, "read", once());
}

template <class T, class Once>
Task<Result<T>> ForeignDevice::persistently(Once once) {
  for (unsigned attempts = 0;; ++attempts) {
    auto done = co_await attempt<T>(once);
    if (done) {
      note_success();
      co_return done;
    }
    DISKFERRY_CO_CHECK(co_await try_again(std::move(done).error(), attempts));
  }
}

Task<Result<void>> ForeignDevice::read(std::uint64_t offset, std::span<std::byte> into) {
  return persistently<void>([this, offset, into] { return nbd_->read(offset, into); });
}

Task<Result<std::vector<Extent>>> ForeignDevice::extents(Range range, std::size_t extents_max) {
  return persistently<std::vector<Extent>>(
      [this, range, extents_max] { return nbd_->extents(range, extents_max); });
}

void ForeignDevice::note_success() noexcept {
  for (const auto& child : children_) child->note_success();
  if (away_since_ns_.load(std::memory_order_relaxed) != 0) away_since_ns_.store(0, std::memory_order_relaxed);
}

TimePoint ForeignDevice::away_since() noexcept {
  Duration::rep since = 0;
  const Duration::rep now = context_.clock.now().time_since_epoch().count();
  return TimePoint(Duration(away_since_ns_.compare_exchange_strong(since, now) ? now : since));
}

/// The time is that of all requests together: those that waited for their turn do not begin from nothing.
Task<Result<void>> ForeignDevice::try_again(Error error, unsigned attempts) {
  Duration limit = plan_.retry_limit;
  if (is_ending_.load(std::memory_order_relaxed)) limit = std::min(ending_limit, limit);
  if (!may_pass(error.kind()) || death() || context_.clock.now() - away_since() >= limit) {
    if (may_pass(error.kind())) given_up_.fetch_add(1, std::memory_order_relaxed);
    co_return unexpected(explained(std::move(error)));
  }
  repeated_.fetch_add(1, std::memory_order_relaxed);
  if (plan_.restarts_child || error.kind() == ErrorKind::timed_out) children_.front()->ask_restart();
  const Duration pause = std::min(pause_max, first_pause * (1U << std::min(attempts, 5U)));
  co_return co_await context_.clock.sleep_for(pause);
}

std::optional<Error> ForeignDevice::death() const {
  for (const auto& child : children_) {
    if (auto dead = child->death()) return dead;
  }
  return std::nullopt;
}

/// What the operator should read: why the child ended, else what it said of the failure.
Error ForeignDevice::explained(Error error) const {
  if (error.kind() == ErrorKind::cancelled) return error;
  if (auto dead = death()) {
    if (const auto& where = error.position()) return std::move(*dead).at(where->offset, where->length);
    return *std::move(dead);
  }
  error = std::move(error).object(plan_.name);
  const std::string words = children_.front()->words();
  if (error.kind() == ErrorKind::io && !words.empty()) error = std::move(error).why("QEMU says: " + words);
  return error;
}

Error ForeignDevice::read_only(std::string operation) const {
  return fail(ErrorKind::read_only, std::move(operation), plan_.name).why("it is read through QEMU");
}

Task<Result<void>> ForeignDevice::write(std::uint64_t, std::span<const std::byte>, WriteFlags) {
  co_return unexpected(read_only("write"));
}
Task<Result<void>> ForeignDevice::write_zeroes(Range, ZeroFlags) {
  co_return unexpected(read_only("zero"));
}
Task<Result<void>> ForeignDevice::discard(Range) {
  co_return unexpected(read_only("discard"));
}
Task<Result<void>> ForeignDevice::flush() {
  co_return Result<void>{};
}

Task<Result<void>> ForeignDevice::close() {
  if (nbd_) (void)co_await nbd_->close();
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) co_await (*child)->stop();
  co_return Result<void>{};
}

std::uint64_t ForeignDevice::repeated_requests() const noexcept {
  return repeated_.load(std::memory_order_relaxed) + nbd_->repeated_requests();
}

void ForeignDevice::stop_waiting() noexcept {
  is_ending_.store(true, std::memory_order_relaxed);
  nbd_->stop_waiting();
}

}  // namespace diskferry::foreign
