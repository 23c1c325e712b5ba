#include "drivers/rbd/image.hpp"

#include "drivers/rbd/status.hpp"

#include <array>
#include <ctime>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <span>

#include <rbd/librbd.h>

namespace diskferry::rbd {
namespace {

constexpr std::size_t watchers_max = 256;
constexpr std::int64_t ns_per_s = 1'000'000'000;

/// The value that counts for this image: its own metadata come before the configuration file, and before what
/// we set.
bool is_on(rbd_image_t image, std::string_view option) {
  std::array<rbd_config_option_t, 256> all{};
  int count = static_cast<int>(all.size());
  if (rbd_config_image_list(image, all.data(), &count) < 0) return true;  // not proved to be off
  bool found = true;
  for (const auto& one : std::span(all).first(static_cast<std::size_t>(count))) {
    if (one.name == option) found = std::string_view(one.value) != "false";
  }
  rbd_config_image_list_cleanup(all.data(), count);
  return found;
}

}  // namespace

Result<std::unique_ptr<Image>> Image::open(const Endpoint& endpoint, Purpose purpose) {
  DISKFERRY_TRY(auto cluster, Cluster::connect(endpoint));
  std::unique_ptr<Image> image(new Image(endpoint, std::move(cluster)));
  const char* const snapshot = endpoint.snapshot.empty() ? nullptr : endpoint.snapshot.c_str();
  const int failed =
      purpose == Purpose::read
          ? rbd_open_read_only(image->cluster_->pool(), endpoint.image.c_str(), &image->image_, snapshot)
          : rbd_open(image->cluster_->pool(), endpoint.image.c_str(), &image->image_, snapshot);
  if (failed < 0) {
    image->image_ = nullptr;
    return unexpected(status_error(failed, "open", endpoint.name));
  }
  DISKFERRY_CHECK(image->look_at_it());
  return image;
}

Image::~Image() {
  if (image_ != nullptr) (void)rbd_close(image_);
}

Result<void> Image::look_at_it() {
  rbd_image_info_t info{};
  std::uint64_t features = 0;
  std::uint64_t flags = 0;
  std::uint64_t stripe_count = 0;
  std::uint64_t overlap = 0;
  std::array<char, 1024> id{};
  int failed = rbd_stat(image_, &info, sizeof info);
  if (failed >= 0) failed = rbd_get_features(image_, &features);
  if (failed >= 0) failed = rbd_get_flags(image_, &flags);
  if (failed >= 0) failed = rbd_get_stripe_count(image_, &stripe_count);
  if (failed >= 0) failed = rbd_get_overlap(image_, &overlap);
  if (failed >= 0) failed = rbd_get_id(image_, id.data(), id.size());
  if (failed < 0) return unexpected(status_error(failed, "open", endpoint_.name));
  facts_ = {.size_bytes = info.size,
            .object_bytes = info.obj_size,
            .id = id.data(),
            .data_pool = rbd_get_data_pool_id(image_),
            .is_clone = overlap != 0,
            .is_striped = stripe_count != 1,
            .has_lock = (features & RBD_FEATURE_EXCLUSIVE_LOCK) != 0,
            .has_fast_diff = (features & RBD_FEATURE_FAST_DIFF) != 0 &&
                             (flags & (RBD_FLAG_FAST_DIFF_INVALID | RBD_FLAG_OBJECT_MAP_INVALID)) == 0,
            .is_write_durable = (features & RBD_FEATURE_JOURNALING) == 0 && !is_on(image_, "rbd_cache")};
  return {};
}

std::string Image::identity() const {
  const std::string start = cluster_->identity_start();
  return start.empty() ? start : start + facts_.id;
}

Result<std::vector<ImageUser>> Image::other_users() const {
  std::array<rbd_image_watcher_t, watchers_max> watchers{};
  std::size_t count = watchers.size();
  if (const int failed = rbd_watchers_list(image_, watchers.data(), &count); failed < 0)
    return unexpected(status_error(failed, "look who uses it", endpoint_.name));
  const auto found = std::span(watchers).first(count);
  std::vector<ImageUser> others;
  for (const auto& one : found) {
    const auto client = static_cast<std::uint64_t>(one.id);
    if (client != cluster_->client_id()) others.push_back({client, one.addr});
  }
  rbd_watchers_list_cleanup(watchers.data(), count);
  return others;
}

void Image::leave_note(const std::string& folder) {
  note_ = ClientNote::leave(folder, identity(), cluster_->client_id());
}

Result<void> Image::lock() {
  if (!facts_.has_lock) return {};
  const int failed = rbd_lock_acquire(image_, RBD_LOCK_MODE_EXCLUSIVE);
  if (failed < 0) return unexpected(status_error(failed, "take the exclusive lock", endpoint_.name));
  return {};
}

Result<void> Image::resize(std::uint64_t size_bytes, bool may_shrink, std::atomic<bool>* stop) {
  const int failed = rbd_resize2(image_, size_bytes, may_shrink, stop_where_told, stop);
  if (failed == stop_here) return unexpected(cancelled_error("resize", endpoint_.name));
  if (failed < 0) return unexpected(status_error(failed, "resize", endpoint_.name));
  return {};
}

std::int64_t Image::modified_ns() const {
  timespec at{};
  if (!endpoint_.snapshot.empty() || rbd_get_modify_timestamp(image_, &at) < 0) return 0;
  return std::int64_t{at.tv_sec} * ns_per_s + at.tv_nsec;
}

int stop_where_told(std::uint64_t, std::uint64_t, void* stop) noexcept {
  const auto* const told = static_cast<const std::atomic<bool>*>(stop);
  return told != nullptr && told->load(std::memory_order_relaxed) ? stop_here : 0;
}

Error in_use_error(const std::string& name, const std::vector<ImageUser>& users) {
  std::vector<std::string> addresses;
  for (const ImageUser& user : users) addresses.push_back(user.address);
  return fail(ErrorKind::in_use, "open", name)
      .why(fmt::format("it is open for writing by {}",
                       printable(fmt::format("{}", fmt::join(addresses, ", ")))))
      .remedy("end the program that has it open; one that has died is counted for half a minute");
}

}  // namespace diskferry::rbd
