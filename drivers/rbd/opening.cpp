#include "drivers/rbd/opening.hpp"

#include "drivers/rbd/blocking.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace diskferry::rbd {
namespace {

constexpr Duration in_use_pause = std::chrono::milliseconds(500);
/// What closing may wait for at each of its steps, where the cluster is not there any more.
constexpr Duration close_step_limit = std::chrono::seconds(1);

/// Of clients that died on this machine the cluster is told, once: it would count them for half a minute.
class Others {
 public:
  Others(std::shared_ptr<Image> image, std::string notes_folder)
      : image_(std::move(image)), notes_folder_(std::move(notes_folder)) {}

  /// Blocks.
  Result<std::vector<ImageUser>> look() {
    DISKFERRY_TRY(auto others, image_->other_users());
    if (others.empty()) {
      forget_dead_clients(notes_folder_, image_->identity());
      return others;
    }
    for (const std::uint64_t id : dead_clients(notes_folder_, image_->identity())) {
      if (!told_.insert(id).second) continue;
      const auto user = std::ranges::find(others, id, &ImageUser::client_id);
      // Where that is not allowed it is waited for.
      if (user != others.end()) (void)image_->cluster().shut_out(user->address);
    }
    return others;
  }

 private:
  const std::shared_ptr<Image> image_;
  const std::string notes_folder_;
  std::set<std::uint64_t> told_;
};

Task<Result<void>> wait_for_others(DriverContext& context, std::shared_ptr<Image> image, Duration limit) {
  const TimePoint until = Clock::after(context.clock.now(), limit);
  const auto all = std::make_shared<Others>(image, context.notes_folder);
  for (;;) {
    DISKFERRY_CO_TRY(const auto others,
                     co_await run_blocking(context.blocking_pool, [all] { return all->look(); }));
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
  co_await context.blocking_pool.run([&image, &context] {
    image->leave_note(context.notes_folder);
    return true;
  });
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
