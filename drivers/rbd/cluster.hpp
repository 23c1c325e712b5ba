// Cluster: one connection to a Ceph cluster, with a pool open. Everything here blocks, for as long as the
// limits of the endpoint at most: it is called on threads of the BlockingPool (blocking.hpp). Handles of the
// library are void* in its own headers, too.
#pragma once

#include "drivers/rbd/endpoint.hpp"

#include <memory>
#include <optional>
#include <string>

namespace diskferry::rbd {

/// Thread: any, one call at a time, but limit_waits().
class Cluster {
 public:
  /// Errors: permission, not_found (pool or namespace), gone, invalid_argument (the configuration file).
  static Result<std::unique_ptr<Cluster>> connect(const Endpoint& endpoint);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  /// rados_ioctx_t of the pool and namespace.
  void* pool() const noexcept { return pool_; }
  std::int64_t pool_id() const noexcept;
  /// As the cluster numbers its clients, in lists of watchers for one.
  std::uint64_t client_id() const noexcept;
  /// Puts another client, one that is known to be dead, on the blocklist: nothing that it has sent arrives
  /// any more where a request of this one has been since, and it is no user of images. Errors: permission.
  Result<void> shut_out(const std::string& address) const;
  /// From now on a request fails that has waited for so long; in whole seconds. Thread: any.
  void limit_waits(Duration limit) noexcept;
  /// "rbd|FSID|POOL|NAMESPACE|", which an image's id completes to what no other image has.
  std::string identity_start() const;
  /// What the pool can take by its rules of replication, its quota and what is used: nullopt where nobody in
  /// the cluster counts it (no manager), or tells this user.
  std::optional<std::uint64_t> free_bytes(std::int64_t pool_id) const;
  /// Asks each of the two pools, of the metadata and of the data, to remove an object that is not there.
  /// Errors: permission.
  Result<void> check_may_write(std::int64_t data_pool) const;
  /// Errors: not_found.
  Result<std::int64_t> id_of_pool(const std::string& name) const;

 private:
  explicit Cluster(const Endpoint& endpoint) : endpoint_(endpoint) {}
  Result<void> configure();
  Result<void> set(const char* option, const std::string& value);
  Result<void> open_pool();

  const Endpoint endpoint_;
  void* cluster_ = nullptr;  // rados_t
  void* pool_ = nullptr;     // rados_ioctx_t
};

/// Of the answer to "df" in JSON. Pure; nullopt where it does not tell.
std::optional<std::uint64_t> free_bytes_of(std::string_view answer, std::int64_t pool_id);

}  // namespace diskferry::rbd
