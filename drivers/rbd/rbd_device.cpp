#include "drivers/rbd/rbd_device.hpp"

#include "diskferry/units.hpp"
#include "drivers/rbd/allocation.hpp"
#include "drivers/rbd/blocking.hpp"
#include "drivers/rbd/opening.hpp"
#include "drivers/rbd/status.hpp"
#include "drivers/support/run_on.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/chrono.h>
#include <fmt/format.h>

namespace diskferry::rbd {
namespace {

/// The library sends a request for each object at once, and this is how many it gets.
constexpr std::uint64_t objects_per_request_max = 256;
/// An image that grows does so in steps; what is not written takes no storage, and closing trims the rest.
constexpr std::uint64_t growth_bytes = 1 * gib;
constexpr Duration ending_limit = std::chrono::seconds(1);
/// A write is answered when the replicas have it: over a link with 5 ms for a round trip 16 of 256 KiB would
/// be 0.8 GB/s at the very most, and the OSDs take their time too. These fill 25 Gbit/s.
constexpr unsigned parallel_requests = 64;

std::string_view to_string(Verb verb) noexcept {
  switch (verb) {
    case Verb::read:
      return "read";
    case Verb::write:
      return "write";
    case Verb::zero:
    case Verb::zero_keeping_storage:
      return "zero";
    case Verb::discard:
      return "discard";
    case Verb::flush:
      return "flush";
  }
  return "request";
}

}  // namespace

RbdDevice::RbdDevice(DriverContext& context, Executor reactor, const Endpoint& endpoint,
                     std::shared_ptr<Image> image, Purpose purpose)
    : context_(context),
      endpoint_(endpoint),
      executor_(std::move(reactor)),
      image_(std::move(image)),
      requests_(executor_, image_->handle()),
      size_bytes_(image_->facts().size_bytes),
      image_bytes_(image_->facts().size_bytes) {
  const ImageFacts& facts = image_->facts();
  info_.name = endpoint_.name;
  info_.zero = ZeroSupport::unmapping;
  info_.is_read_only = purpose == Purpose::read;
  info_.can_discard = true;
  info_.can_report_extents = !facts.is_striped;
  info_.can_fua = facts.is_write_durable;
  info_.can_grow = purpose == Purpose::write;
  info_.can_multi_connection = facts.is_write_durable;
  info_.parallel_requests = parallel_requests;
}

Task<Result<void>> RbdDevice::start_requests() {
  co_return requests_.start();
}
Task<Result<void>> RbdDevice::stop_requests() {
  requests_.stop();
  co_return Result<void>{};
}

Task<Result<void>> RbdDevice::start() {
  if (!info_.is_read_only) {
    DISKFERRY_CO_TRY(info_.starts_zeroed, co_await run_blocking(context_.blocking_pool, [this] {
                       return ask_whether_empty(*image_);
                     }));
  }
  image_->cluster().limit_waits(endpoint_.reconnect_limit);
  co_return co_await run_on(executor_, start_requests());
}

Result<void> RbdDevice::check_gone() const {
  if (!is_gone_.load(std::memory_order_acquire)) [[likely]]
    return {};
  std::lock_guard lock(guard_);
  return unexpected(*gone_);
}

Result<void> RbdDevice::judge(const Request& request, std::int64_t result) {
  const bool is_short = request.verb == Verb::read && std::cmp_not_equal(result, request.range.length);
  if (result >= 0 && !is_short) return {};
  const std::string verb(to_string(request.verb));
  if (result >= 0 || result == -EINVAL)
    return unexpected(fail(ErrorKind::gone, verb, endpoint_.name)
                          .why("the image is smaller than it was when it was opened")
                          .at(request.range.offset, request.range.length));
  Error error = status_error(result, verb, endpoint_.name).at(request.range.offset, request.range.length);
  if (result == -ETIMEDOUT)
    error =
        std::move(error).why(fmt::format("the cluster did not answer for {}",
                                         std::chrono::ceil<std::chrono::seconds>(endpoint_.reconnect_limit)));
  // A cache or a journal tells once of what it lost.
  const bool lost_writes = request.verb == Verb::flush && !image_->facts().is_write_durable;
  if (!is_final(result) && !lost_writes) return unexpected(std::move(error));
  std::lock_guard lock(guard_);
  if (!gone_) gone_ = error;
  is_gone_.store(true, std::memory_order_release);
  return unexpected(std::move(error));
}

Task<Result<void>> RbdDevice::perform(Request request) {
  DISKFERRY_CO_CHECK(check_gone());
  co_return judge(request, co_await requests_.perform(request));
}

Task<Result<void>> RbdDevice::perform_in_pieces(Verb verb, Range range) {
  const std::uint64_t piece_max = objects_per_request_max * image_->facts().object_bytes;
  while (!range.empty()) {
    const std::uint64_t piece_end = std::min(range.end(), align_down(range.offset, piece_max) + piece_max);
    const Range piece{range.offset, piece_end - range.offset};
    DISKFERRY_CO_CHECK(co_await perform({.verb = verb, .range = piece}));
    range = {piece.end(), range.end() - piece.end()};
    if (!range.empty() && co_await is_cancelled())
      co_return unexpected(cancelled_error(std::string(to_string(verb)), endpoint_.name));
  }
  co_return Result<void>{};
}

Task<Result<void>> RbdDevice::make_room(Range range) {
  if (range.end() <= size_bytes()) [[likely]]
    co_return Result<void>{};
  DISKFERRY_CO_CHECK(check_gone());
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await growing_.lock());
  if (range.end() > image_bytes_) {
    const std::uint64_t wanted = align_up(range.end(), growth_bytes);
    DISKFERRY_CO_CHECK(co_await run_blocking(context_.blocking_pool,
                                             [this, wanted] { return image_->resize(wanted, false); }));
    image_bytes_ = wanted;
  }
  if (range.end() > size_bytes()) size_bytes_.store(range.end(), std::memory_order_release);
  co_return Result<void>{};
}

Task<Result<void>> RbdDevice::read(std::uint64_t offset, std::span<std::byte> into) {
  return perform({.verb = Verb::read, .range = {offset, into.size()}, .into = into.data()});
}

Task<Result<void>> RbdDevice::write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags) {
  const Range range{offset, from.size()};
  DISKFERRY_CO_CHECK(co_await make_room(range));
  co_return co_await perform({.verb = Verb::write, .range = range, .from = from.data()});
}

Task<Result<void>> RbdDevice::write_zeroes(Range range, ZeroFlags flags) {
  if (flags.fast_only && !flags.may_unmap)
    co_return unexpected(fail(ErrorKind::unsupported, "zero quickly", endpoint_.name)
                             .why("zeros that keep their storage are written by the cluster")
                             .at(range.offset, range.length));
  DISKFERRY_CO_CHECK(co_await make_room(range));
  co_return co_await perform_in_pieces(flags.may_unmap ? Verb::zero : Verb::zero_keeping_storage, range);
}

Task<Result<void>> RbdDevice::discard(Range range) {
  return perform_in_pieces(Verb::discard, range);
}

Task<Result<void>> RbdDevice::flush() {
  return perform({.verb = Verb::flush});
}

Task<Result<std::vector<Extent>>> RbdDevice::extents(Range range, std::size_t extents_max) {
  DISKFERRY_CO_CHECK(check_gone());
  // The library ends the process where the image is resized while it counts the objects.
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await growing_.lock());
  co_return co_await run_blocking(context_.blocking_pool, [this, range, extents_max] {
    return ask_extents(*image_, range, extents_max);
  });
}

Task<Result<void>> RbdDevice::close() {
  DISKFERRY_CO_CHECK(co_await run_on(executor_, stop_requests()));
  Result<void> trimmed;
  if (image_bytes_ > size_bytes() && !is_gone_.load())
    trimmed = co_await context_.blocking_pool.run([this] { return image_->resize(size_bytes(), true); });
  co_await close_image(context_.blocking_pool, std::move(image_));
  co_return trimmed;
}

void RbdDevice::stop_waiting() noexcept {
  image_->cluster().limit_waits(ending_limit);
}

}  // namespace diskferry::rbd
