// What libvirt adds to a definition while the machine runs on a host, and what only that host can give.
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <charconv>
#include <fmt/format.h>

#include <pugixml.hpp>

namespace diskferry {
namespace {

std::string_view attribute(const pugi::xml_node& element, const char* name) {
  return element.attribute(name).value();
}

/// Names users gave begin with "ua-"; libvirt makes up the others when a machine starts.
void remove_alias(pugi::xml_node device) {
  const auto alias = device.child("alias");
  if (alias && !attribute(alias, "name").starts_with("ua-")) remove_element(alias);
}

/// A running disk's layers are numbered.
void remove_layer_numbers(pugi::xml_node disk) {
  for (auto layer = disk; layer; layer = layer.child("backingStore"))
    set_attribute(layer.child("source"), "index", "");
  for (auto layer = disk.child("backingStore"); layer; layer = layer.child("backingStore"))
    set_attribute(layer, "index", "");
  remove_elements(disk, "mirror");
}

void remove_interface_state(pugi::xml_node interface) {
  auto source = interface.child("source");
  set_attribute(source, "portid", "");
  if (source.attribute("network")) set_attribute(source, "bridge", "");
  const auto target = interface.child("target");
  const std::string_view tap = attribute(target, "dev");
  if (tap.starts_with("vnet") || tap.starts_with("macvtap") || tap.starts_with("macvlan"))
    remove_element(target);
}

/// Terminals have numbers and the sockets of channels lie in a folder named after the running domain.
void remove_channel_state(pugi::xml_node channel) {
  set_attribute(channel, "tty", "");
  set_attribute(channel.child("target"), "state", "");
  const auto source = channel.child("source");
  const bool is_generated = attribute(channel, "type") == "pty" ||
                            attribute(source, "path").contains("/channel/target/domain-") ||
                            attribute(source, "path").starts_with("/run/libvirt/qemu/channel/");
  if (source && is_generated) remove_element(source);
}

void remove_graphics_state(pugi::xml_node graphics) {
  if (attribute(graphics, "autoport") != "yes") return;
  for (const char* name : {"port", "tlsPort", "websocket"}) {
    if (!graphics.attribute(name)) continue;
    const bool is_port = std::string_view(name) == "port";
    set_attribute(graphics, name, is_port || std::string_view(name) == "websocket" ? "-1" : "");
  }
}

/// Whether a list as "0-3,^2,8" names a CPU from `host_cpus` on. What is no such list does as well.
bool names_cpu_beyond(std::string_view list, unsigned host_cpus) {
  std::size_t at = 0;
  while (at < list.size()) {
    if (list[at] < '0' || list[at] > '9') {
      ++at;
      continue;
    }
    unsigned cpu = 0;
    const auto end = std::from_chars(list.data() + at, list.data() + list.size(), cpu);
    if (end.ec != std::errc{} || cpu >= host_cpus) return true;
    at = static_cast<std::size_t>(end.ptr - list.data());
  }
  return false;
}

/// Shares of caches and of memory bandwidth (resctrl) go with the CPUs they were cut for.
bool is_share_of_host(std::string_view name) {
  return name == "cachetune" || name == "memorytune";
}

void remove_with_warning(pugi::xml_node element, Warnings& warnings) {
  warnings.push_back(
      fmt::format("placement: <{}> is left out, the destination does not have the CPUs", element.name()));
  remove_element(element);
}

}  // namespace

void remove_generated_labels(pugi::xml_node domain) {
  for (auto label = domain.child("seclabel"); label;) {
    const auto next = label.next_sibling("seclabel");
    // With a base label the element is the operator's; what was made from it is not.
    if (attribute(label, "type") == "dynamic") {
      if (label.child("baselabel")) {
        for (const char* name : {"label", "imagelabel"}) remove_elements(label, name);
      } else {
        remove_element(label);
      }
    }
    label = next;
  }
}

void make_persistent_form(pugi::xml_node domain) {
  const auto devices = domain.child("devices");
  for (const auto& device : devices.children()) {
    const std::string_view kind = device.name();
    remove_alias(device);
    if (kind == "disk") remove_layer_numbers(device);
    if (kind == "interface") remove_interface_state(device);
    if (kind == "serial" || kind == "console" || kind == "parallel" || kind == "channel")
      remove_channel_state(device);
    if (kind == "graphics") remove_graphics_state(device);
  }
}

void fit_placement(pugi::xml_node domain, unsigned host_cpus, Warnings& warnings) {
  auto vcpu = domain.child("vcpu");
  if (names_cpu_beyond(attribute(vcpu, "cpuset"), host_cpus)) {
    set_attribute(vcpu, "cpuset", "");
    warnings.emplace_back(
        "placement: the CPUs of <vcpu> are left out, the destination does not have them all");
  }
  // Collected first: taking the last one away empties <cputune>.
  std::vector<pugi::xml_node> misfits;
  const auto tuning = domain.child("cputune");
  for (const auto& element : tuning.children()) {
    if (names_cpu_beyond(attribute(element, "cpuset"), host_cpus)) misfits.push_back(element);
  }
  if (misfits.empty()) return;
  for (const auto& element : tuning.children()) {
    if (is_share_of_host(element.name())) misfits.push_back(element);
  }
  for (const auto& element : misfits) remove_with_warning(element, warnings);
}

}  // namespace diskferry
