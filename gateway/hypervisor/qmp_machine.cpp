// One query after the other. What only some machines have is asked for leniently; what a move needs is not.
#include "gateway/hypervisor/qmp_machine.hpp"

#include "gateway/hypervisor/qmp_migration_run.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr std::size_t disks_max = 256;
constexpr std::string_view peripherals = "/machine/peripheral/";
constexpr std::string_view no_uuid = "00000000-0000-0000-0000-000000000000";

Error unreadable(std::string_view query) {
  return fail(ErrorKind::protocol, fmt::format("read QEMU's answer to {}", query)).why("it has another form");
}

const json::object* object_in(const json::object& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}

std::uint64_t number_in(const json::object& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  if (value == nullptr) return 0;
  boost::system::error_code failed;
  const auto number = value->to_number<std::uint64_t>(failed);
  return failed ? 0 : number;
}

/// "/machine/peripheral/vda/virtio-backend" is the device "vda".
std::string device_id(std::string_view qdev) {
  if (!qdev.starts_with(peripherals)) return qdev.starts_with('/') ? std::string() : std::string(qdev);
  qdev.remove_prefix(peripherals.size());
  return std::string(qdev.substr(0, qdev.find('/')));
}

QmpMachineDisk read_disk(const json::object& object) {
  QmpMachineDisk disk;
  const auto name = [&disk](std::string_view text) {
    if (!text.empty() && std::ranges::find(disk.names, text) == disk.names.end())
      disk.names.emplace_back(text);
  };
  name(device_id(qmp_text(object, "qdev")));
  name(qmp_text(object, "device"));
  const auto* inserted = object_in(object, "inserted");
  if (inserted == nullptr) return disk;
  disk.node = qmp_text(*inserted, "node-name");
  name(disk.node);
  disk.filename = qmp_text(*inserted, "file");
  disk.format = qmp_text(*inserted, "drv");
  const auto* read_only = inserted->if_contains("ro");
  disk.is_read_only = read_only != nullptr && read_only->is_bool() && read_only->get_bool();
  if (const auto* image = object_in(*inserted, "image")) disk.size_bytes = number_in(*image, "virtual-size");
  return disk;
}

/// A text that some QEMUs do not have; empty then.
Task<std::string> text_or_nothing(Qmp& monitor, std::string query, std::string field) {
  const auto answer = co_await monitor.execute(std::move(query));
  const auto* object = answer ? answer->if_object() : nullptr;
  co_return object == nullptr ? std::string() : std::string(qmp_text(*object, field));
}

Task<std::string> property(Qmp& monitor, std::string path, std::string name) {
  const auto answer =
      co_await monitor.execute("qom-get", {{"path", std::move(path)}, {"property", std::move(name)}});
  co_return answer && answer->is_string() ? std::string(answer->get_string()) : std::string();
}

/// A type of QEMU's objects without what all of its kind end in: "qemu64-x86_64-cpu" is "qemu64".
std::string plain_type(std::string type, std::string_view ending) {
  const auto at = type.rfind(ending);
  if (at != std::string::npos && at + ending.size() == type.size()) type.erase(at);
  return type;
}

Task<Result<void>> ask_for_processors(Qmp& monitor, QmpMachine& machine) {
  DISKFERRY_CO_TRY(const auto answer, co_await monitor.execute("query-cpus-fast"));
  const auto* list = answer.if_array();
  if (list == nullptr) co_return unexpected(unreadable("query-cpus-fast"));
  machine.vcpus = static_cast<unsigned>(list->size());
  const auto* first = list->empty() ? nullptr : list->front().if_object();
  if (first == nullptr) co_return Result<void>{};
  const std::string target(qmp_text(*first, "target"));
  machine.cpu_model = plain_type(
      co_await property(monitor, std::string(qmp_text(*first, "qom-path")), "type"), "-" + target + "-cpu");
  co_return Result<void>{};
}

Task<Result<void>> ask_for_kind(Qmp& monitor, QmpMachine& machine) {
  machine.name = co_await text_or_nothing(monitor, "query-name", "name");
  machine.uuid = co_await text_or_nothing(monitor, "query-uuid", "UUID");
  if (machine.uuid == no_uuid) machine.uuid.clear();
  const QmpVersion version = monitor.version();
  machine.version = fmt::format("{}.{}.{}", version.major, version.minor, version.micro);
  machine.machine_type = plain_type(co_await property(monitor, "/machine", "type"), "-machine");
  const auto kvm = co_await monitor.execute("query-kvm");
  const auto* is_on = kvm && kvm->is_object() ? kvm->get_object().if_contains("enabled") : nullptr;
  machine.accelerator = is_on != nullptr && is_on->is_bool() && is_on->get_bool() ? "kvm" : "tcg";
  DISKFERRY_CO_TRY(const auto memory, co_await monitor.execute("query-memory-size-summary"));
  if (const auto* sizes = memory.if_object()) machine.memory_bytes = number_in(*sizes, "base-memory");
  co_return Result<void>{};
}

}  // namespace

Result<std::vector<QmpMachineDisk>> read_qmp_disks(const json::value& answer) {
  const auto* list = answer.if_array();
  if (list == nullptr) return unexpected(unreadable("query-block"));
  if (list->size() > disks_max)
    return unexpected(fail(ErrorKind::too_large, "read QEMU's disks").why("there are more than 256"));
  std::vector<QmpMachineDisk> disks;
  for (const auto& each : *list) {
    const auto* object = each.if_object();
    if (object == nullptr) return unexpected(unreadable("query-block"));
    disks.push_back(read_disk(*object));
  }
  return disks;
}

Task<Result<QmpMachine>> describe_by_qmp(Qmp& monitor) {
  QmpMachine machine;
  DISKFERRY_CO_TRY(machine.status, co_await qmp_status(monitor, "query-status"));
  DISKFERRY_CO_TRY(machine.migration, co_await qmp_status(monitor, "query-migrate"));
  DISKFERRY_CO_CHECK(co_await ask_for_kind(monitor, machine));
  DISKFERRY_CO_CHECK(co_await ask_for_processors(monitor, machine));
  DISKFERRY_CO_TRY(const auto jobs, co_await monitor.execute("query-jobs"));
  if (const auto* list = jobs.if_array()) machine.jobs = static_cast<unsigned>(list->size());
  DISKFERRY_CO_TRY(const auto blocks, co_await monitor.execute("query-block"));
  DISKFERRY_CO_TRY(machine.disks, read_qmp_disks(blocks));
  co_return machine;
}

const QmpMachineDisk* disk_named(const QmpMachine& machine, std::string_view name) noexcept {
  const auto has_name = [name](const QmpMachineDisk& disk) {
    return std::ranges::find(disk.names, name) != disk.names.end();
  };
  const auto found = std::ranges::find_if(machine.disks, has_name);
  return found == machine.disks.end() ? nullptr : &*found;
}

}  // namespace diskferry
