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

/// What writing to the image, or making it where there is none, would meet.
Result<void> find_obstacles(const Endpoint& endpoint, Image* image, Cluster& cluster, VolumeFacts& facts) {
  if (!endpoint.snapshot.empty())
    facts.obstacles.push_back(
        fail(ErrorKind::read_only, "write", endpoint.name).why("a snapshot cannot be written"));
  if (auto allowed = cluster.check_may_write(); !allowed)
    facts.obstacles.push_back(std::move(allowed).error());
  if (image == nullptr) return {};
  DISKFERRY_TRY(const auto users, image->other_users());
  if (!users.empty()) facts.obstacles.push_back(in_use_error(endpoint.name, users));
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
  if (options.for_writing) DISKFERRY_CHECK(find_obstacles(endpoint, nullptr, *cluster, facts));
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

Result<void> empty_image(Image& image, std::uint64_t size_bytes) {
  // Also lets go of a parent, to which a clone would read through.
  DISKFERRY_CHECK(image.resize(0, true));
  return image.resize(size_bytes, true);
}

Result<void> remove_image(const Endpoint& endpoint) {
  DISKFERRY_CHECK(check_is_image(endpoint, "remove"));
  DISKFERRY_TRY(const auto cluster, Cluster::connect(endpoint));
  const int failed = rbd_remove(cluster->pool(), endpoint.image.c_str());
  if (failed < 0) return unexpected(status_error(failed, "remove", endpoint.name));
  return {};
}

Result<VolumeFacts> look_at_image(const Endpoint& endpoint, const LookOptions& options) {
  auto opened = Image::open(endpoint, Purpose::read);
  if (!opened && opened.error().kind() == ErrorKind::not_found) return look_at_nothing(endpoint, options);
  DISKFERRY_TRY(const auto image, std::move(opened));
  const ImageFacts& known = image->facts();
  VolumeFacts facts{.exists = true,
                    .can_be_emptied = true,
                    .size_bytes = known.size_bytes,
                    .identity = image->identity(),
                    .free_bytes = image->cluster().free_bytes(known.data_pool)};
  if (options.for_writing) DISKFERRY_CHECK(find_obstacles(endpoint, image.get(), image->cluster(), facts));
  return facts;
}

}  // namespace diskferry::rbd
