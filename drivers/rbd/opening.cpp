#include "drivers/rbd/opening.hpp"

#include "drivers/rbd/blocking.hpp"

namespace diskferry::rbd {
namespace {

constexpr Duration in_use_pause = std::chrono::milliseconds(500);
/// What closing may wait for at each of its steps, where the cluster is not there any more.
constexpr Duration close_step_limit = std::chrono::seconds(1);

Task<Result<void>> wait_for_others(DriverContext& context, std::shared_ptr<Image> image, Duration limit) {
  const TimePoint until = Clock::after(context.clock.now(), limit);
  for (;;) {
    DISKFERRY_CO_TRY(const auto others,
                     co_await run_blocking(context.blocking_pool, [image] { return image->other_users(); }));
    if (others.empty()) co_return Result<void>{};
    if (context.clock.now() >= until) co_return unexpected(in_use_error(image->name(), others));
    DISKFERRY_CO_CHECK(co_await context.clock.sleep_for(in_use_pause));
  }
}

Task<Result<void>> make_ours(DriverContext& context, std::shared_ptr<Image> image, Duration limit) {
  DISKFERRY_CO_CHECK(co_await wait_for_others(context, image, limit));
  co_return co_await run_blocking(context.blocking_pool, [image] { return image->lock(); });
}

}  // namespace

Task<Result<std::shared_ptr<Image>>> open_image(DriverContext& context, Endpoint endpoint, Purpose purpose) {
  co_return co_await run_or_give_up(
      context.blocking_pool, cancelled_error("open", endpoint.name),
      [endpoint, purpose]() -> Result<std::shared_ptr<Image>> { return Image::open(endpoint, purpose); });
}

Task<Result<std::shared_ptr<Image>>> open_for_writing(DriverContext& context, Endpoint endpoint,
                                                      bool without_lock) {
  if (!endpoint.snapshot.empty())
    co_return unexpected(fail(ErrorKind::read_only, "open", endpoint.name)
                             .why("a snapshot cannot be written")
                             .remedy("name the image without @SNAPSHOT"));
  DISKFERRY_CO_TRY(std::shared_ptr<Image> image, co_await open_image(context, endpoint, Purpose::write));
  if (without_lock) co_return image;
  auto ours = co_await make_ours(context, image, endpoint.in_use_limit);
  if (ours) co_return image;
  co_await close_image(context.blocking_pool, std::move(image));
  co_return unexpected(std::move(ours).error());
}

Task<void> close_image(BlockingPool& pool, std::shared_ptr<Image> image) {
  image->cluster().limit_waits(close_step_limit);
  co_await pool.run([image = std::move(image)]() mutable {
    image.reset();
    return true;
  });
}

}  // namespace diskferry::rbd
