// A few commands of the monitor; see the header.
#include "gateway/hypervisor/nbd_reconnect.hpp"

#include "gateway/hypervisor/qmp_message.hpp"
#include "gateway/hypervisor/qmp_migration_run.hpp"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

/// libvirt numbers commands itself.
std::string command(std::string_view name, json::object arguments) {
  return json::serialize(json::object{{"execute", name}, {"arguments", std::move(arguments)}});
}

Error unreadable() {
  return fail(ErrorKind::protocol, "read QEMU's answer").why("it has another form");
}

Result<json::value> read_answer(std::string_view answer) {
  DISKFERRY_TRY(QmpMessage message, parse_qmp(answer));
  auto* reply = std::get_if<QmpReply>(&message);
  if (reply == nullptr) return unexpected(unreadable());
  return std::move(reply->result);
}

bool flag_in(const json::object& object, std::string_view name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_bool() && value->get_bool();
}

Task<Result<json::value>> ask(Libvirt& libvirt, std::string domain, std::string text) {
  DISKFERRY_CO_TRY(const std::string answer,
                   co_await libvirt.monitor_command(std::move(domain), std::move(text)));
  co_return read_answer(answer);
}

/// What a node that is opened anew has to be told again.
json::object options_like(const NbdReconnect& wanted, const QemuNode& like) {
  return {{"read-only", like.is_read_only},
          {"discard", wanted.discards ? "unmap" : "ignore"},
          {"detect-zeroes", like.detect_zeroes},
          {"cache", {{"direct", like.is_direct}, {"no-flush", like.ignores_flushes}}}};
}

}  // namespace

std::string format_node_name(unsigned node_index) {
  return fmt::format("libvirt-{}-format", node_index);
}
std::string connection_node_name(unsigned node_index) {
  return fmt::format("libvirt-{}-storage", node_index);
}
std::string reconnecting_node_name(unsigned node_index) {
  return fmt::format("diskferry-{}", node_index);
}

Result<QemuNode> find_qemu_node(std::string_view answer, std::string_view name) {
  DISKFERRY_TRY(const json::value nodes, read_answer(answer));
  const auto* list = nodes.if_array();
  if (list == nullptr) return unexpected(unreadable());
  for (const json::value& each : *list) {
    const auto* node = each.if_object();
    if (node == nullptr || qmp_text(*node, "node-name") != name) continue;
    QemuNode found{.is_read_only = flag_in(*node, "ro")};
    if (const auto zeroes = qmp_text(*node, "detect_zeroes"); !zeroes.empty()) found.detect_zeroes = zeroes;
    found.driver = qmp_text(*node, "drv");
    const auto* cache = node->if_contains("cache");
    if (cache == nullptr || !cache->is_object()) return unexpected(unreadable());
    found.is_direct = flag_in(cache->get_object(), "direct");
    found.ignores_flushes = flag_in(cache->get_object(), "no-flush");
    return found;
  }
  return unexpected(fail(ErrorKind::not_found, "find QEMU's node", std::string(name)));
}

std::string add_node_command(const NbdReconnect& wanted, const QemuNode& like) {
  json::object node = options_like(wanted, like);
  node["driver"] = "nbd";
  node["node-name"] = reconnecting_node_name(wanted.node_index);
  node["server"] = {{"type", "unix"}, {"path", wanted.socket}};
  node["export"] = wanted.export_name;
  node["reconnect-delay"] = wanted.delay_s;
  return command("blockdev-add", std::move(node));
}

std::string reopen_command(const NbdReconnect& wanted, const QemuNode& like) {
  json::object node = options_like(wanted, like);
  node["driver"] = "raw";
  node["node-name"] = format_node_name(wanted.node_index);
  node["file"] = reconnecting_node_name(wanted.node_index);
  return command("blockdev-reopen", {{"options", json::array{std::move(node)}}});
}

std::string end_connection_command(unsigned node_index) {
  return command("blockdev-del", {{"node-name", connection_node_name(node_index)}});
}

std::string take_name_command(unsigned node_index, const QemuNode& like, bool discards) {
  json::object node = options_like({.discards = discards}, like);
  node["driver"] = "raw";
  node["node-name"] = connection_node_name(node_index);
  node["file"] = reconnecting_node_name(node_index);
  return command("blockdev-add", std::move(node));
}

namespace {
/// `nodes`: the answer to query-named-block-nodes, of before.
Task<Result<void>> replace_connection(Libvirt& libvirt, std::string domain, const NbdReconnect& wanted,
                                      const std::string& nodes) {
  const auto found = find_qemu_node(nodes, connection_node_name(wanted.node_index));
  // What is no connection is ours, of an earlier attempt.
  if (found && found->driver != "nbd") co_return Result<void>{};
  if (!found && found.error().kind() != ErrorKind::not_found) co_return unexpected(found.error());
  const auto ended = co_await ask(libvirt, domain, end_connection_command(wanted.node_index));
  if (!ended && ended.error().kind() != ErrorKind::not_found) co_return unexpected(ended.error());
  DISKFERRY_CO_TRY(const QemuNode like, find_qemu_node(nodes, format_node_name(wanted.node_index)));
  const auto added =
      co_await ask(libvirt, domain, take_name_command(wanted.node_index, like, wanted.discards));
  if (!added && added.error().kind() != ErrorKind::already_exists) co_return unexpected(added.error());
  co_return Result<void>{};
}
}  // namespace

Task<Result<void>> have_nbd_reconnect(Libvirt& libvirt, std::string domain, NbdReconnect wanted) {
  DISKFERRY_CO_TRY(const std::string nodes,
                   co_await libvirt.monitor_command(
                       domain, command("query-named-block-nodes", json::object{{"flat", true}})));
  DISKFERRY_CO_TRY(const QemuNode like, find_qemu_node(nodes, format_node_name(wanted.node_index)));
  const auto added = co_await ask(libvirt, domain, add_node_command(wanted, like));
  // One that is there is of an earlier attempt.
  if (!added && added.error().kind() != ErrorKind::already_exists) co_return unexpected(added.error());
  const auto opened = co_await ask(libvirt, domain, reopen_command(wanted, like));
  if (!opened) co_return unexpected(opened.error());
  co_return co_await replace_connection(libvirt, domain, wanted, nodes);
}

Task<Result<void>> forget_nbd_reconnect(Libvirt& libvirt, std::string domain, unsigned node_index) {
  const auto gone = co_await ask(
      libvirt, domain, command("blockdev-del", {{"node-name", reconnecting_node_name(node_index)}}));
  if (!gone && gone.error().kind() != ErrorKind::not_found) co_return unexpected(gone.error());
  co_return Result<void>{};
}

}  // namespace diskferry
