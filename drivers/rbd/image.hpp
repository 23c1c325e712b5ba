// Image: one RBD image, open through a connection of its own. Everything here blocks and is called on threads
// of the BlockingPool; requests on the data path are sent by requests.hpp.
#pragma once

#include "diskferry/extent.hpp"
#include "drivers/rbd/client_note.hpp"
#include "drivers/rbd/cluster.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace diskferry::rbd {

enum class Purpose : std::uint8_t { read, write };

/// Fixed when the image is opened.
struct ImageFacts {
  std::uint64_t size_bytes = 0;
  std::uint64_t object_bytes = 0;
  std::string id{};             ///< stays the same when the image is renamed
  std::int64_t data_pool = -1;  ///< where its data are
  bool is_clone = false;        ///< reads through to a parent
  bool is_striped = false;      ///< over several objects at once
  bool has_lock = false;        ///< the feature "exclusive-lock"
  bool has_fast_diff =
      false;  ///< and its object map is valid: allocation is known without asking each object
  bool is_write_durable =
      false;  ///< when it is answered: there is no cache and no journal that says otherwise
};

struct ImageUser {
  std::uint64_t client_id = 0;  ///< as Cluster::client_id()
  std::string address{};
};

/// Thread: any, several calls at once.
class Image {
 public:
  /// Connects and opens. Errors: as Cluster::connect; not_found, permission, unsupported.
  static Result<std::unique_ptr<Image>> open(const Endpoint& endpoint, Purpose purpose);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  void* handle() const noexcept { return image_; }  ///< rbd_image_t
  Cluster& cluster() const noexcept { return *cluster_; }
  const ImageFacts& facts() const noexcept { return facts_; }
  const std::string& name() const noexcept { return endpoint_.name; }
  std::string identity() const;

  /// Other clients that have it open for writing.
  Result<std::vector<ImageUser>> other_users() const;
  /// See client_note.hpp. For one that is open for writing.
  void leave_note(const std::string& folder);
  /// Takes the exclusive lock for as long as the image is open, where it has that feature. Errors: in_use.
  Result<void> lock();
  /// Errors: cancelled, where `stop` became true meanwhile: it has its old size then, and its end may be
  /// gone.
  Result<void> resize(std::uint64_t size_bytes, bool may_shrink, std::atomic<bool>* stop = nullptr);
  /// When it was written to, since the epoch; 0: a snapshot, or nobody has noted it. librbd notes a write
  /// that comes 60 s (rbd_mtime_update_interval) or more after the last one that it noted, so that of an
  /// image that was idle for that long every change shows, and of others what is written later. The kernel's
  /// client notes nothing.
  std::int64_t modified_ns() const;

 private:
  Image(const Endpoint& endpoint, std::unique_ptr<Cluster> cluster)
      : endpoint_(endpoint), cluster_(std::move(cluster)) {}
  Result<void> look_at_it();

  const Endpoint endpoint_;
  const std::unique_ptr<Cluster> cluster_;
  void* image_ = nullptr;  // rbd_image_t
  ImageFacts facts_{};
  std::unique_ptr<ClientNote> note_{};
};

/// What a callback of ours returns to end a call of the library, which then returns it, too.
inline constexpr int stop_here = -9999;  // no errno
/// The library's callback of progress, called for each object that it removes. `stop`: a std::atomic<bool>,
/// or null.
int stop_where_told(std::uint64_t done, std::uint64_t all, void* stop) noexcept;

/// The error of an image that others use; `users` is not empty.
Error in_use_error(const std::string& name, const std::vector<ImageUser>& users);

}  // namespace diskferry::rbd
