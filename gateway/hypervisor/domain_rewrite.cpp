// A domain's definition for its destination: which disk gets what, and what is the domain's own.
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>

#include <pugixml.hpp>

namespace diskferry {
namespace {

Error bad_change(std::string why) {
  return fail(ErrorKind::invalid_argument, "rewrite domain XML").why(std::move(why));
}

/// Disks are found by their targets, which read_domain() has found to be unique.
Result<pugi::xml_node> find_disk(const pugi::xml_node& devices, const std::string& target) {
  std::string known;
  for (const auto& disk : devices.children("disk")) {
    const std::string_view name = disk.child("target").attribute("dev").value();
    if (name == target) return disk;
    known += (known.empty() ? "" : ", ") + printable(name);
  }
  return unexpected(
      fail(ErrorKind::not_found, "rewrite domain XML", "disk " + printable(target))
          .why(known.empty() ? "the machine has no disks" : "the machine's disks are " + known));
}

/// Disks that nobody spoke of may lie on shared storage or may have been forgotten; only the operator can
/// tell.
void warn_of_other_disks(const VmDescription& vm, const std::set<std::string>& named, Warnings& warnings) {
  for (const VmDisk& disk : vm.disks) {
    if (!named.contains(disk.target) && !disk.source_text.empty())
      warnings.push_back(fmt::format("{}: stays as it is and must be found at the destination: {}",
                                     printable(disk.target), printable(disk.source_text)));
  }
}

Result<void> rewrite_disks(pugi::xml_node devices, const VmDescription& vm, const DomainRewrite& changes,
                           Warnings& warnings) {
  std::set<std::string> named;
  for (const std::string& target : changes.keep_disks) {
    DISKFERRY_CHECK(find_disk(devices, target));
    named.insert(target);
  }
  for (const DiskRewrite& change : changes.disks) {
    DISKFERRY_TRY(const auto disk, find_disk(devices, change.target));
    if (!named.insert(change.target).second)
      return unexpected(bad_change(fmt::format("disk {} is named twice", printable(change.target))));
    if (auto done = rewrite_disk(disk, change, warnings); !done)
      return unexpected(std::move(done).error().in("disk " + printable(change.target)));
  }
  warn_of_other_disks(vm, named, warnings);
  return {};
}

/// What the interface had of its old network on this host is libvirt's to find again on the other one.
void rename_network(pugi::xml_node source, const std::map<std::string, std::string>& networks,
                    std::set<std::string>& used) {
  for (const char* name : {"network", "bridge", "dev"}) {
    const auto found = networks.find(source.attribute(name).value());
    if (!source.attribute(name)) continue;
    if (found != networks.end()) {
      used.insert(found->first);
      set_attribute(source, name, found->second);
      if (name == std::string_view("network")) {
        set_attribute(source, "portid", "");
        set_attribute(source, "bridge", "");
      }
    }
    return;  // the first of these is what the definition names; another one is what the running machine has
  }
}

Result<void> rewrite_networks(pugi::xml_node devices, const DomainRewrite& changes, Warnings& warnings) {
  for (const auto& [from, to] : changes.networks) {
    if (to.empty() || !is_plain_text(to))
      return unexpected(bad_change(fmt::format("'{}' is no name of a network", printable(to))));
  }
  std::set<std::string> used;
  for (const auto& element : devices.children("interface")) {
    if (const std::string_view type = element.attribute("type").value(); type != "hostdev" && type != "vdpa")
      rename_network(element.child("source"), changes.networks, used);
  }
  for (const auto& [from, to] : changes.networks) {
    if (!used.contains(from))
      warnings.push_back(fmt::format("network {}: no interface of the machine uses it", printable(from)));
  }
  return {};
}

Result<void> rewrite_cpu(pugi::xml_node domain, const DomainRewrite& changes, Warnings& warnings) {
  const auto cpu = domain.child("cpu");
  if (changes.cpu_xml.empty()) {
    if (std::string_view(cpu.attribute("mode").value()) == "host-passthrough")
      warnings.emplace_back("cpu: the guest sees the host's own CPU; a live move needs the same model there");
    return {};
  }
  pugi::xml_document given;
  DISKFERRY_CHECK(parse_xml(changes.cpu_xml, "CPU XML", given));
  const auto replacement = given.child("cpu");
  if (!replacement) return unexpected(bad_change("the CPU to use instead is no <cpu> element"));
  // A domain without <cpu> gets one in front of its devices; the order of a domain's children is free.
  const auto place = cpu ? cpu : insert_element_before(domain.child("devices"), "cpu");
  replace_element(place, replacement);
  return {};
}

/// Sets the text of an element that every domain has.
Result<void> set_text(pugi::xml_node element, const std::string& value, std::string_view what) {
  if (value.empty()) return {};
  if (!is_plain_text(value)) return unexpected(bad_change(fmt::format("XML cannot hold this {}", what)));
  if (!element) return unexpected(bad_change(fmt::format("the definition has no {} to replace", what)));
  remove_content(element);
  element.append_child(pugi::node_pcdata).set_value(value.c_str());
  return {};
}

Result<void> rewrite_host_parts(pugi::xml_node domain, const DomainRewrite& changes) {
  auto devices = domain.child("devices");
  auto emulator = devices.child("emulator");
  if (!changes.emulator.empty() && !changes.emulator.starts_with('/'))
    return unexpected(bad_change("the emulator is no absolute path"));
  if (changes.name.contains('/')) return unexpected(bad_change("a domain's name has no '/'"));
  DISKFERRY_CHECK(set_text(domain.child("name"), changes.name, "name"));
  DISKFERRY_CHECK(set_text(emulator, changes.emulator, "emulator"));
  if (changes.machine.empty()) return {};
  const auto type = domain.child("os").child("type");
  if (!type || !is_plain_text(changes.machine))
    return unexpected(bad_change("the machine type cannot be set"));
  set_attribute(type, "machine", changes.machine);
  return {};
}

}  // namespace

Result<RewrittenDomain> rewrite_domain(std::string_view xml, const DomainRewrite& changes) {
  // What cannot be read is not written either: this checks all that the edits below rely on.
  DISKFERRY_TRY(const VmDescription vm, read_domain(xml));
  pugi::xml_document document;
  DISKFERRY_CHECK(parse_xml(xml, "domain XML", document));
  auto domain = document.child("domain");
  if (!domain.child("devices")) return unexpected(bad_change("the domain has no devices"));
  RewrittenDomain result;
  DISKFERRY_CHECK(rewrite_disks(domain.child("devices"), vm, changes, result.warnings));
  DISKFERRY_CHECK(rewrite_networks(domain.child("devices"), changes, result.warnings));
  DISKFERRY_CHECK(rewrite_cpu(domain, changes, result.warnings));
  DISKFERRY_CHECK(rewrite_host_parts(domain, changes));
  if (changes.host_cpus != 0) fit_placement(domain, changes.host_cpus, result.warnings);
  if (changes.is_persistent_form) make_persistent_form(domain);
  remove_generated_labels(domain);
  set_attribute(domain, "id", "");
  result.xml = xml_text(document);
  return result;
}

}  // namespace diskferry
