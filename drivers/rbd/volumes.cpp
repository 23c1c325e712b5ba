#include "drivers/rbd/volumes.hpp"

#include "drivers/rbd/status.hpp"

#include <bit>
#include <cerrno>

#include <rbd/librbd.h>

namespace diskferry::rbd {
namespace {

class ImageOptions {
 public:
  ImageOptions() { rbd_image_options_create(&options_); }
  ~ImageOptions() { rbd_image_options_destroy(options_); }
  ImageOptions(const ImageOptions&) = delete;
  ImageOptions& operator=(const ImageOptions&) = delete;
  int set(int option, std::uint64_t value) { return rbd_image_options_set_uint64(options_, option, value); }
  int set(int option, const std::string& value) {
    return rbd_image_options_set_string(options_, option, value.c_str());
  }
  rbd_image_options_t get() const noexcept { return options_; }

 private:
  rbd_image_options_t options_ = nullptr;
};

Result<void> check_is_image(const Endpoint& endpoint, const char* operation) {
  if (endpoint.snapshot.empty()) return {};
  return unexpected(fail(ErrorKind::read_only, operation, endpoint.name)
                        .why("a snapshot is named, which nobody can change")
                        .remedy("name the image without @SNAPSHOT"));
}

/// What writing to the image, or making it where there is none, would meet. `data_pool`: where its data are,
/// or would be.
void find_obstacles(const Endpoint& endpoint, const Cluster& cluster, std::int64_t data_pool,
                    VolumeFacts& facts) {
  if (!endpoint.snapshot.empty())
    facts.obstacles.push_back(
        fail(ErrorKind::read_only, "write", endpoint.name).why("a snapshot cannot be written"));
  if (auto allowed = cluster.check_may_write(data_pool); !allowed)
    facts.obstacles.push_back(std::move(allowed).error());
}

Result<void> find_users(const Image& image, VolumeFacts& facts) {
  DISKFERRY_TRY(const auto users, image.other_users());
  if (!users.empty()) facts.obstacles.push_back(in_use_error(image.name(), users));
  return {};
}

Result<VolumeFacts> look_at_nothing(const Endpoint& endpoint, const LookOptions& options) {
  DISKFERRY_TRY(const auto cluster, Cluster::connect(endpoint));
  VolumeFacts facts{.can_be_emptied = true};
  std::int64_t pool = cluster->pool_id();
  if (!endpoint.data_pool.empty()) {
    DISKFERRY_TRY(pool, cluster->id_of_pool(endpoint.data_pool));
  }
  facts.free_bytes = cluster->free_bytes(pool);
  if (options.for_writing) find_obstacles(endpoint, *cluster, pool, facts);
  return facts;
}

}  // namespace

Result<void> make_image(const Endpoint& endpoint, std::uint64_t size_bytes) {
  DISKFERRY_CHECK(check_is_image(endpoint, "create"));
  DISKFERRY_TRY(const auto cluster, Cluster::connect(endpoint));
  ImageOptions options;
  int failed = 0;
  if (endpoint.object_bytes != 0)
    failed = options.set(RBD_IMAGE_OPTION_ORDER,
                         static_cast<std::uint64_t>(std::countr_zero(endpoint.object_bytes)));
  if (failed >= 0 && !endpoint.data_pool.empty()) {
    DISKFERRY_CHECK(cluster->id_of_pool(endpoint.data_pool));
    failed = options.set(RBD_IMAGE_OPTION_DATA_POOL, endpoint.data_pool);
  }
  if (failed >= 0) failed = rbd_create4(cluster->pool(), endpoint.image.c_str(), size_bytes, options.get());
  if (failed < 0) return unexpected(status_error(failed, "create", endpoint.name));
  return {};
}

Result<void> empty_image(Image& image, std::uint64_t size_bytes, std::atomic<bool>& stop) {
  // Also lets go of a parent, to which a clone would read through.
  DISKFERRY_CHECK(image.resize(0, true, &stop));
  return image.resize(size_bytes, true);
}

Result<void> remove_image(const Endpoint& endpoint, std::atomic<bool>& stop) {
  DISKFERRY_CHECK(check_is_image(endpoint, "remove"));
  if (stop) return unexpected(cancelled_error("remove", endpoint.name));
  DISKFERRY_TRY(const auto cluster, Cluster::connect(endpoint));
  const int failed =
      rbd_remove_with_progress(cluster->pool(), endpoint.image.c_str(), stop_where_told, &stop);
  if (failed == stop_here) return unexpected(cancelled_error("remove", endpoint.name));
  if (failed < 0) return unexpected(status_error(failed, "remove", endpoint.name));
  return {};
}

Result<VolumeFacts> look_at_image(const Endpoint& endpoint, const LookOptions& options) {
  auto opened = Image::open(endpoint, Purpose::read);
  if (!opened && opened.error().kind() == ErrorKind::not_found) return look_at_nothing(endpoint, options);
  DISKFERRY_TRY(const auto image, std::move(opened));
  const ImageFacts& known = image->facts();
  // What the image has already is not counted as free, though emptying would give it back: the library knows
  // it in whole objects only and without what snapshots keep, and ends the process where somebody resizes the
  // image while it counts.
  VolumeFacts facts{.exists = true,
                    .can_be_emptied = true,
                    .size_bytes = known.size_bytes,
                    .identity = image->identity(),
                    .modified_ns = image->modified_ns(),
                    .free_bytes = image->cluster().free_bytes(known.data_pool)};
  if (!options.for_writing) return facts;
  find_obstacles(endpoint, image->cluster(), known.data_pool, facts);
  DISKFERRY_CHECK(find_users(*image, facts));
  return facts;
}

}  // namespace diskferry::rbd
