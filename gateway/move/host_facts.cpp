// See the header. The texts come from a daemon on another host: wrong ones give empty fields, never more.
#include "gateway/move/host_facts.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <pugixml.hpp>

namespace diskferry {
namespace {

constexpr std::size_t guests_max = 256;      // QEMU has some thirty architectures, each run in two ways
constexpr std::size_t machines_max = 4096;   // of one architecture; QEMU has about a hundred
constexpr std::size_t firmwares_max = 1024;  // of one machine type; distributions ship about ten

Result<pugi::xml_document> parse(std::string_view xml, const char* what) {
  pugi::xml_document document;
  const auto parsed = document.load_buffer(xml.data(), xml.size());
  if (!parsed)
    return unexpected(fail(ErrorKind::corrupt, std::string("read ") + what).why(parsed.description()));
  return document;
}

void read_machines(const pugi::xml_node& from, GuestSupport& guest) {
  for (const auto machine : from.children("machine")) {
    if (guest.machines.size() >= machines_max) return;
    const unsigned cpus_max = machine.attribute("maxCpus").as_uint();
    guest.machines[machine.child_value()] = cpus_max;
    if (const auto canonical = machine.attribute("canonical")) guest.machines[canonical.value()] = cpus_max;
  }
}

void read_architecture(const pugi::xml_node& architecture, HostFacts& host) {
  for (const auto domain : architecture.children("domain")) {
    if (host.guests.size() >= guests_max) return;
    GuestSupport guest{.architecture = architecture.attribute("name").value(),
                       .domain_type = domain.attribute("type").value(),
                       .emulator = domain.child_value("emulator")};
    if (guest.emulator.empty()) guest.emulator = architecture.child_value("emulator");
    read_machines(architecture, guest);
    read_machines(domain, guest);
    host.guests.push_back(std::move(guest));
  }
}

}  // namespace

Result<void> read_capabilities(std::string_view xml, HostFacts& host) {
  DISKFERRY_TRY(const pugi::xml_document document, parse(xml, "a host's capabilities"));
  const auto root = document.child("capabilities");
  if (!root)
    return unexpected(
        fail(ErrorKind::corrupt, "read a host's capabilities").why("there are no capabilities in it"));
  if (const std::string uuid = root.child("host").child_value("uuid"); !uuid.empty()) host.uuid = uuid;
  for (const auto model : root.child("host").children("secmodel")) {
    const std::string name = model.child_value("model");
    if (name == "dac")
      host.hypervisor_user = model.child_value("baselabel");
    else if (!name.empty() && name != "none")
      host.security_models.push_back(name);
  }
  for (const auto guest : root.children("guest"))
    for (const auto architecture : guest.children("arch")) read_architecture(architecture, host);
  return {};
}

Result<void> read_domain_capabilities(std::string_view xml, HostFacts& host) {
  DISKFERRY_TRY(const pugi::xml_document document, parse(xml, "what machines can have"));
  const auto root = document.child("domainCapabilities");
  if (!root)
    return unexpected(
        fail(ErrorKind::corrupt, "read what machines can have").why("there are no capabilities in it"));
  for (const auto value : root.child("os").child("loader").children("value")) {
    if (host.firmwares.size() >= firmwares_max) break;
    host.firmwares.emplace_back(value.child_value());
  }
  return {};
}

const GuestSupport* support_for(const VmDescription& machine, const HostFacts& host) noexcept {
  const auto score = [&](const GuestSupport& guest) {
    if (guest.architecture != machine.architecture || guest.domain_type != machine.domain_type) return 0;
    if (guest.emulator == machine.emulator) return 3;
    return guest.machines.contains(machine.machine) ? 2 : 1;
  };
  const auto best = std::ranges::max_element(host.guests, {}, score);
  return best == host.guests.end() || score(*best) == 0 ? nullptr : &*best;
}

std::string version_text(std::uint64_t version) {
  return fmt::format("{}.{}.{}", version / 1000000, version / 1000 % 1000, version % 1000);
}

}  // namespace diskferry
