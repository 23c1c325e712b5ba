// Reading a domain's definition: one function a part.
#include "gateway/hypervisor/disk_source.hpp"
#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fmt/format.h>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include <pugixml.hpp>

namespace diskferry {
namespace {

Error bad_domain(std::string why) {
  return fail(ErrorKind::corrupt, "read", "domain XML").why(std::move(why));
}

std::string attribute(const pugi::xml_node& element, const char* name) {
  return element.attribute(name).value();
}
bool has(const pugi::xml_node& element, const char* name, std::string_view value) {
  return element.attribute(name).value() == value;
}

/// The text of an element without the white space around it.
std::string text_of(const pugi::xml_node& element) {
  std::string_view text = element.text().get();
  constexpr std::string_view blanks = " \t\r\n";
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(blanks) - first + 1));
}

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number{};
  const auto end = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || end.ec != std::errc{} || end.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

/// What one of libvirt's units is in bytes, as libvirt reads them: "KB" is 1000, "k" and "KiB" are 1024, in
/// any case.
std::optional<std::uint64_t> unit_bytes(std::string unit) {
  std::ranges::transform(unit, unit.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (unit.empty()) return 1024;
  if (unit == "b" || unit == "byte" || unit == "bytes") return 1;
  const auto power = std::string_view("kmgtpe").find(unit.front());
  const std::string_view ending = std::string_view(unit).substr(1);
  if (power == std::string_view::npos || (!ending.empty() && ending != "ib" && ending != "b"))
    return std::nullopt;
  std::uint64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i) bytes *= ending == "b" ? 1000 : 1024;
  return bytes;
}

Result<std::uint64_t> bytes_of(const pugi::xml_node& element) {
  const std::string text = text_of(element);
  const auto count = number_of<std::uint64_t>(text);
  const auto unit = unit_bytes(attribute(element, "unit"));
  if (!count || !unit || *count > std::numeric_limits<std::uint64_t>::max() / *unit)
    return unexpected(
        bad_domain(fmt::format("'{}' in <{}> is no amount of memory", printable(text), element.name())));
  return *count * *unit;
}

/// What a definition has once: of two, libvirt and we might take different ones.
Result<void> check_single(const pugi::xml_node& parent, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (parent.child(name).next_sibling(name))
      return unexpected(bad_domain(fmt::format("<{}> has more than one <{}>", parent.name(), name)));
  }
  return {};
}

std::vector<std::string> read_backing(const pugi::xml_node& disk) {
  std::vector<std::string> layers;
  for (auto layer = disk.child("backingStore"); layer; layer = layer.child("backingStore")) {
    const auto source = read_source(layer, layer.attribute("type").value());
    if (source.text.empty()) break;  // <backingStore/> ends a chain
    layers.push_back(source.name.empty() ? source.text : source.name);
  }
  return layers;
}

Result<std::optional<Range>> read_slice(const pugi::xml_node& source) {
  for (const auto& element : source.child("slices").children("slice")) {
    if (attribute(element, "type") != "storage") continue;
    const auto offset = number_of<std::uint64_t>(attribute(element, "offset"));
    const auto size = number_of<std::uint64_t>(attribute(element, "size"));
    if (!offset || !size || *size == 0 || *size > std::numeric_limits<std::uint64_t>::max() - *offset)
      return unexpected(bad_domain("a slice of a disk's storage is no range of bytes"));
    return Range{*offset, *size};
  }
  return std::nullopt;
}

std::optional<VmMirror> read_mirror(const pugi::xml_node& disk) {
  const auto mirror = disk.child("mirror");
  if (!mirror) return std::nullopt;
  return VmMirror{.source = read_source(mirror, attribute(mirror, "type")).name,
                  .node_index = number_of<unsigned>(attribute(mirror.child("source"), "index")).value_or(0),
                  .is_ready = has(mirror, "ready", "yes")};
}

Result<VmDisk> read_disk(const pugi::xml_node& element) {
  DISKFERRY_CHECK(check_single(element, {"source", "target", "driver", "backingStore"}));
  VmDisk disk;
  const auto target = element.child("target");
  const auto source = element.child("source");
  const auto driver = element.child("driver");
  disk.target = attribute(target, "dev");
  if (disk.target.empty()) return unexpected(bad_domain("a disk has no target"));
  disk.alias = attribute(element.child("alias"), "name");
  disk.device = element.attribute("device").as_string("disk");
  disk.bus = attribute(target, "bus");
  const std::string type = element.attribute("type").as_string("file");
  auto name = read_source(element, type);
  if (!name.text.empty()) disk.source_type = type;
  disk.source = std::move(name.name);
  disk.source_text = std::move(name.text);
  disk.format = attribute(driver, "type");
  disk.cache = attribute(driver, "cache");
  disk.serial = text_of(element.child("serial"));
  disk.startup_policy = attribute(source, "startupPolicy");
  disk.backing = read_backing(element);
  disk.is_read_only = element.child("readonly") || disk.device == "cdrom";
  disk.is_shareable = static_cast<bool>(element.child("shareable"));
  disk.is_transient = static_cast<bool>(element.child("transient"));
  disk.is_encrypted = element.child("encryption") || source.child("encryption");
  disk.has_block_job = static_cast<bool>(element.child("mirror"));
  disk.mirror = read_mirror(element);
  disk.discards = has(driver, "discard", "unmap");
  disk.node_index = number_of<unsigned>(attribute(source, "index")).value_or(0);
  if (const auto blocks = element.child("blockio").attribute("logical_block_size")) {
    const auto bytes = number_of<std::uint32_t>(blocks.value());
    if (!bytes) return unexpected(bad_domain(fmt::format("disk {}: bad block size", printable(disk.target))));
    disk.logical_block_bytes = *bytes;
  }
  DISKFERRY_TRY(disk.slice, read_slice(source));
  return disk;
}

Result<std::vector<VmDisk>> read_disks(const pugi::xml_node& devices) {
  std::vector<VmDisk> disks;
  std::set<std::string> targets;
  for (const auto& element : devices.children("disk")) {
    DISKFERRY_TRY(auto disk, read_disk(element));
    if (!targets.insert(disk.target).second)
      return unexpected(bad_domain(fmt::format("two disks have the target {}", printable(disk.target))));
    disks.push_back(std::move(disk));
  }
  return disks;
}

VmInterface read_interface(const pugi::xml_node& element) {
  VmInterface interface{.type = attribute(element, "type"),
                        .mac = attribute(element.child("mac"), "address")};
  const auto source = element.child("source");
  // An interface of type network also shows the bridge that its network has on this host: the network comes
  // first.
  for (const char* name : {"network", "bridge", "dev", "path"}) {
    interface.source = attribute(source, name);
    if (!interface.source.empty()) break;
  }
  return interface;
}

std::string usb_words(const pugi::xml_node& source) {
  if (const auto vendor = source.child("vendor"))
    return fmt::format("usb {}:{}", attribute(vendor, "id"), attribute(source.child("product"), "id"));
  const auto address = source.child("address");
  return fmt::format("usb bus {} device {}", attribute(address, "bus"), attribute(address, "device"));
}

/// A device of the host that the guest was given, in words.
std::string host_device_words(const pugi::xml_node& element) {
  const auto source = element.child("source");
  const std::string type = attribute(element, "type");
  if (has(element, "mode", "capabilities"))
    return fmt::format(
        "{} {}", type,
        text_of(source.child("block")) + text_of(source.child("char")) + text_of(source.child("interface")));
  if (type == "pci") return "pci " + pci_address(source.child("address"));
  if (type == "usb") return usb_words(source);
  if (type == "mdev") return "mdev " + attribute(source.child("address"), "uuid");
  if (type == "scsi_host") return "scsi_host " + attribute(source, "wwpn");
  if (type == "scsi" && has(source, "protocol", "iscsi")) return "scsi iscsi " + attribute(source, "name");
  if (type == "scsi") {
    const auto address = source.child("address");
    return fmt::format("scsi {} {}:{}:{}", attribute(source.child("adapter"), "name"),
                       attribute(address, "bus"), attribute(address, "target"), attribute(address, "unit"));
  }
  return type.empty() ? "device of unknown type" : type;
}

/// Devices that are the host's own but are written elsewhere than in <hostdev>.
std::vector<std::string> hidden_host_devices(const pugi::xml_node& devices) {
  std::vector<std::string> found;
  for (const auto& element : devices.children("interface")) {
    if (has(element, "type", "hostdev"))
      found.push_back("network interface pci " + pci_address(element.child("source").child("address")));
    if (has(element, "type", "vdpa"))
      found.push_back("network interface vdpa " + attribute(element.child("source"), "dev"));
  }
  for (const auto& element : devices.children("tpm")) {
    const auto backend = element.child("backend");
    if (has(backend, "type", "passthrough"))
      found.push_back("tpm " + attribute(backend.child("device"), "path"));
  }
  for (const auto& element : devices.children("memory")) {
    const std::string path = text_of(element.child("source").child("path"));
    if (!path.empty()) found.push_back(fmt::format("{} {}", attribute(element, "model"), path));
  }
  for (const auto& element : devices.children("input")) {
    const auto source = element.child("source");
    if (const auto device = source.attribute(has(element, "type", "evdev") ? "dev" : "evdev"))
      found.push_back(fmt::format("input {}", device.value()));
  }
  for (const auto& element : devices.children("smartcard")) {
    if (has(element, "mode", "host")) found.emplace_back("smartcard reader");
  }
  return found;
}

void read_devices(const pugi::xml_node& devices, VmDescription& vm) {
  vm.emulator = text_of(devices.child("emulator"));
  for (const auto& element : devices.children("interface")) vm.interfaces.push_back(read_interface(element));
  for (const auto& element : devices.children("hostdev"))
    vm.host_devices.push_back(host_device_words(element));
  std::ranges::move(hidden_host_devices(devices), std::back_inserter(vm.host_devices));
  for (const auto& element : devices.children("filesystem"))
    vm.filesystems.push_back(attribute(element.child("target"), "dir"));
  vm.has_emulated_tpm = std::ranges::any_of(devices.children("tpm"), [](const pugi::xml_node& tpm) {
    return has(tpm.child("backend"), "type", "emulator");
  });
  vm.has_shared_memory_device = static_cast<bool>(devices.child("shmem"));
}

void read_os(const pugi::xml_node& os, VmDescription& vm) {
  vm.machine = attribute(os.child("type"), "machine");
  vm.architecture = attribute(os.child("type"), "arch");
  vm.loader = text_of(os.child("loader"));
  const auto nvram = os.child("nvram");
  vm.nvram = text_of(nvram);
  if (vm.nvram.empty()) vm.nvram = read_source(nvram, nvram.attribute("type").value()).text;
}

void read_cpu(const pugi::xml_node& cpu, VmDescription& vm) {
  if (!cpu) return;
  vm.cpu_xml = xml_text(cpu);
  vm.cpu_model = text_of(cpu.child("model"));
  vm.cpu_mode = attribute(cpu, "mode");
  if (vm.cpu_mode.empty() && !vm.cpu_model.empty()) vm.cpu_mode = "custom";
}

/// The root's own texts.
Result<void> read_basics(const pugi::xml_node& domain, VmDescription& vm) {
  vm.domain_type = attribute(domain, "type");
  vm.name = text_of(domain.child("name"));
  if (vm.name.empty()) return unexpected(bad_domain("it has no <name>"));
  vm.uuid = text_of(domain.child("uuid"));
  if (const auto memory = domain.child("memory")) {
    DISKFERRY_TRY(vm.memory_bytes, bytes_of(memory));
  }
  vm.vcpus = 1;
  if (const auto vcpu = domain.child("vcpu")) {
    const auto count = number_of<unsigned>(text_of(vcpu));
    if (!count || *count == 0) return unexpected(bad_domain("the number of virtual CPUs is no number"));
    vm.vcpus = *count;
  }
  vm.has_qemu_arguments = domain.child("qemu:commandline") || domain.child("qemu:override");
  vm.launch_security = attribute(domain.child("launchSecurity"), "type");
  return {};
}

}  // namespace

Result<VmDescription> read_domain(std::string_view xml) {
  pugi::xml_document document;
  DISKFERRY_CHECK(parse_xml(xml, "domain XML", document));
  const auto domain = document.child("domain");
  if (!domain) return unexpected(bad_domain("its root element is not <domain>"));
  DISKFERRY_CHECK(
      check_single(domain, {"name", "uuid", "memory", "vcpu", "os", "cpu", "devices", "cputune"}));
  VmDescription vm;
  DISKFERRY_CHECK(read_basics(domain, vm));
  const auto devices = domain.child("devices");
  read_os(domain.child("os"), vm);
  read_cpu(domain.child("cpu"), vm);
  read_devices(devices, vm);
  DISKFERRY_TRY(vm.disks, read_disks(devices));
  return vm;
}

std::string drive_export_name(const VmDisk& disk) {
  return disk.alias.empty() ? std::string{} : "drive-" + disk.alias;
}

}  // namespace diskferry
