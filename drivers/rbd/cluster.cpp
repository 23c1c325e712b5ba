#include "drivers/rbd/cluster.hpp"

#include "drivers/rbd/status.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <rados/librados.h>

#include <rbd/librbd.h>

namespace diskferry::rbd {
namespace {

/// In the library's unit, which counts 0 as for ever.
std::string whole_seconds(Duration limit) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(limit).count();
  return fmt::format("{}", std::max<std::int64_t>(1, seconds));
}

struct Setting {
  const char* option;
  const char* value;
};
/// What must be so whatever the configuration file says.
constexpr std::array settings{
    // A write is durable when it is answered, and its failure is told with it. A cache would tell of it in
    // some later flush, once.
    Setting{"rbd_cache", "false"},
    Setting{"rbd_persistent_cache_mode", "disabled"},
    // The library copies what is written: otherwise a request could not end before a hung OSD has read it.
    Setting{"rbd_disable_zero_copy_writes", "true"},
    // Beyond these bounds it would block our reactors. Who sends requests has bounds of its own.
    Setting{"objecter_inflight_ops", "0"},
    Setting{"objecter_inflight_op_bytes", "0"},
    // Errors are returned, and told once.
    Setting{"log_to_stderr", "false"},
    Setting{"err_to_stderr", "false"},
    Setting{"admin_socket", ""},
};

constexpr const char* object_that_is_not_there = "diskferry-permission-check";

}  // namespace

Result<std::unique_ptr<Cluster>> Cluster::connect(const Endpoint& endpoint) {
  std::unique_ptr<Cluster> cluster(new Cluster(endpoint));
  if (const int failed = rados_create(&cluster->cluster_, endpoint.user.c_str()); failed < 0)
    return unexpected(status_error(failed, "connect", endpoint.name));
  DISKFERRY_CHECK(cluster->configure());
  if (const int failed = rados_connect(cluster->cluster_); failed < 0)
    return unexpected(connect_error(failed, endpoint.name, endpoint.user));
  DISKFERRY_CHECK(cluster->open_pool());
  return cluster;
}

Cluster::~Cluster() {
  if (pool_ != nullptr) rados_ioctx_destroy(pool_);
  // Also of one that was never connected; a process that ends without it may be ended by the library's own
  // threads.
  if (cluster_ != nullptr) rados_shutdown(cluster_);
}

Result<void> Cluster::set(const char* option, const std::string& value) {
  if (rados_conf_set(cluster_, option, value.c_str()) >= 0) return {};
  return unexpected(fail(ErrorKind::invalid_argument, "connect", endpoint_.name)
                        .why(fmt::format("Ceph does not take this value of {}", option)));
}

Result<void> Cluster::configure() {
  const char* const file = endpoint_.conf.empty() ? nullptr : endpoint_.conf.c_str();
  const int failed = rados_conf_read_file(cluster_, file);
  const bool may_be_missing = endpoint_.conf.empty() && !endpoint_.monitors.empty();
  if (failed == -ENOENT && !may_be_missing)
    return unexpected(fail(ErrorKind::not_found, "connect", endpoint_.name)
                          .why("Ceph's configuration file is not there")
                          .remedy("name it with conf=, or the monitors with mon_host="));
  if (failed < 0 && failed != -ENOENT)
    return unexpected(fail(failed == -EACCES ? ErrorKind::permission : ErrorKind::invalid_argument, "connect",
                           endpoint_.name)
                          .why("Ceph cannot read its configuration file"));
  if (!endpoint_.monitors.empty()) DISKFERRY_CHECK(set("mon_host", endpoint_.monitors));
  if (!endpoint_.keyring.empty()) DISKFERRY_CHECK(set("keyring", endpoint_.keyring));
  for (const Setting& one : settings) DISKFERRY_CHECK(set(one.option, one.value));
  const std::string limit = whole_seconds(endpoint_.connect_limit);
  for (const char* option : {"client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"})
    DISKFERRY_CHECK(set(option, limit));
  return {};
}

Result<void> Cluster::open_pool() {
  const auto not_there = [this](std::string why) {
    return unexpected(fail(ErrorKind::not_found, "open", endpoint_.name).why(std::move(why)));
  };
  const int failed = rados_ioctx_create(cluster_, endpoint_.pool.c_str(), &pool_);
  if (failed == -ENOENT) return not_there(fmt::format("there is no pool {}", printable(endpoint_.pool)));
  if (failed < 0) return unexpected(status_error(failed, "open pool", endpoint_.name));
  // A full cluster says so instead of letting a writer wait for ever.
  rados_set_pool_full_try(pool_);
  if (endpoint_.name_space.empty()) return {};
  bool exists = false;
  if (const int unknown = rbd_namespace_exists(pool_, endpoint_.name_space.c_str(), &exists); unknown < 0)
    return unexpected(status_error(unknown, "open namespace", endpoint_.name));
  if (!exists) return not_there(fmt::format("there is no namespace {}", printable(endpoint_.name_space)));
  rados_ioctx_set_namespace(pool_, endpoint_.name_space.c_str());
  return {};
}

void Cluster::limit_waits(Duration limit) noexcept {
  (void)rados_conf_set(cluster_, "rados_osd_op_timeout", whole_seconds(limit).c_str());
}

std::int64_t Cluster::pool_id() const noexcept {
  return rados_ioctx_get_id(pool_);
}

std::uint64_t Cluster::client_id() const noexcept {
  return rados_get_instance_id(cluster_);
}

Result<void> Cluster::shut_out(const std::string& address) const {
  std::string client = address;
  int failed = rados_blocklist_add(cluster_, client.data(), 0);
  if (failed >= 0) failed = rados_wait_for_latest_osdmap(cluster_);
  if (failed < 0) return unexpected(status_error(failed, "shut a dead client out", endpoint_.name));
  return {};
}

std::string Cluster::identity_start() const {
  std::array<char, 64> fsid{};
  if (rados_cluster_fsid(cluster_, fsid.data(), fsid.size()) < 0) return {};
  return fmt::format("rbd|{}|{}|{}|", fsid.data(), pool_id(), endpoint_.name_space);
}

std::optional<std::uint64_t> Cluster::free_bytes(std::int64_t pool_id) const {
  const char* command = R"({"prefix": "df", "format": "json"})";
  char* answer = nullptr;
  std::size_t answer_bytes = 0;
  char* said = nullptr;
  std::size_t said_bytes = 0;
  const int failed =
      rados_mon_command(cluster_, &command, 1, nullptr, 0, &answer, &answer_bytes, &said, &said_bytes);
  std::optional<std::uint64_t> found;
  if (failed >= 0) found = free_bytes_of({answer, answer_bytes}, pool_id);
  rados_buffer_free(answer);
  rados_buffer_free(said);
  return found;
}

Result<void> Cluster::check_may_write(std::int64_t data_pool) const {
  const auto judge = [this](int result, const char* operation) -> Result<void> {
    if (result >= 0 || result == -ENOENT) return {};
    return unexpected(status_error(result, operation, endpoint_.name));
  };
  DISKFERRY_CHECK(judge(rados_remove(pool_, object_that_is_not_there), "write"));
  if (data_pool == pool_id()) return {};
  rados_ioctx_t data = nullptr;
  if (const int failed = rados_ioctx_create2(cluster_, data_pool, &data); failed < 0)
    return unexpected(status_error(failed, "open the data pool", endpoint_.name));
  rados_set_pool_full_try(data);
  rados_ioctx_set_namespace(data, endpoint_.name_space.c_str());
  const int result = rados_remove(data, object_that_is_not_there);
  rados_ioctx_destroy(data);
  return judge(result, "write to the data pool");
}

Result<std::int64_t> Cluster::id_of_pool(const std::string& name) const {
  const std::int64_t id = rados_pool_lookup(cluster_, name.c_str());
  if (id >= 0) return id;
  return unexpected(fail(ErrorKind::not_found, "open", endpoint_.name)
                        .why(fmt::format("there is no pool {}", printable(name))));
}

}  // namespace diskferry::rbd
