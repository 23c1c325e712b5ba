// A disk gets its new source: what is checked, what is written, and what is left behind with a warning.
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include <pugixml.hpp>

namespace diskferry {
namespace {

/// Guests see the difference between these and an ordinary disk, so that their source cannot be replaced by
/// any.
Result<void> check_kind(const pugi::xml_node& disk, const DiskRewrite& change) {
  const std::string_view type = disk.attribute("type").value();
  const auto refuse = [&](std::string why) -> Result<void> {
    return unexpected(fail(ErrorKind::unsupported, "rewrite domain XML", "disk " + printable(change.target))
                          .why(std::move(why)));
  };
  if (type == "vhostuser" || type == "vhostvdpa")
    return refuse("a program on the host serves it to the guest; another source would be another device");
  const bool is_lun = std::string_view(disk.attribute("device").value()) == "lun";
  const auto* uri = std::get_if<UriDiskSource>(&change.source);
  const bool can_be_lun = std::holds_alternative<BlockDiskSource>(change.source) ||
                          (uri != nullptr && uri->uri.scheme() == "iscsi");
  if (is_lun && (!can_be_lun || format_of(change.source) != "raw"))
    return refuse(
        "the guest sends SCSI commands to it (device='lun'); that needs a block device or an iSCSI LUN");
  return {};
}

/// Whatever the old source says of the old host or storage. The numbers of layers (index) are libvirt's own
/// affair.
void warn_of_old_source(const pugi::xml_node& disk, const DiskRewrite& change, Warnings& warnings) {
  const auto source = disk.child("source");
  const auto warn = [&](std::string_view text) {
    warnings.push_back(fmt::format("{}: {}", printable(change.target), text));
  };
  if (source.child("seclabel")) warn("the security label of the old source is left behind");
  if (source.child("encryption") || disk.child("encryption"))
    warn("the old source is encrypted by QEMU; the new one will not be");
  if (source.child("reservations")) warn("persistent reservations are left behind");
  if (source.child("slices") && change.slice_bytes == 0)
    warn("the old source is a slice of its storage; the new one is used from end to end");
  if (source.child("cookies")) warn("the cookies of the old source are left behind");
  if (disk.child("mirror")) warn("a block job of the old source is left behind");
}

/// What only qcow2 can do, and native I/O where the host caches: libvirt refuses to start such a machine.
void fit_driver(pugi::xml_node driver, const DiskRewrite& change, Warnings& warnings) {
  const auto warn = [&](std::string_view text) {
    warnings.push_back(fmt::format("{}: {}", printable(change.target), text));
  };
  if (format_of(change.source) != "qcow2") {
    if (driver.child("metadata_cache")) {
      remove_elements(driver, "metadata_cache");
      warn("the size of the qcow2 metadata cache is left out, the new format has none");
    }
    set_attribute(driver, "discard_no_unref", "");
  }
  if (!change.cache.empty()) set_attribute(driver, "cache", change.cache);
  const std::string_view cache = driver.attribute("cache").value();
  const bool is_native = std::string_view(driver.attribute("io").value()) == "native";
  if (is_native && cache != "none" && cache != "directsync") {
    set_attribute(driver, "io", "threads");
    warn("io='native' became 'threads': it needs the cache mode none or directsync");
  }
}

void rewrite_driver(pugi::xml_node disk, const DiskRewrite& change, Warnings& warnings) {
  auto driver = disk.child("driver");
  if (!driver) {
    driver = insert_element_before(disk.child("source"), "driver");
    set_attribute(driver, "name", "qemu");
  }
  set_attribute(driver, "type", format_of(change.source));
  fit_driver(driver, change, warnings);
}

/// Empties the source and fills it again, or makes one in front of the target, where libvirt has it. Only the
/// policy for a missing medium outlives the old source.
void rewrite_source(pugi::xml_node disk, const DiskRewrite& change, Warnings& warnings) {
  auto source = disk.child("source");
  const std::string policy = source.attribute("startupPolicy").value();
  if (source) {
    remove_content(source);
    source.remove_attributes();
  } else {
    source = insert_element_before(disk.child("target"), "source");
  }
  write_source(source, change.source);
  if (change.slice_bytes != 0) write_slice(source, change.slice_bytes);
  const bool can_have_policy = type_of(change.source) != std::string_view("network");
  if (can_have_policy) set_attribute(source, "startupPolicy", policy);
  if (!can_have_policy && !policy.empty())
    warnings.push_back(fmt::format("{}: startupPolicy='{}' is left out, network storage has none",
                                   printable(change.target), printable(policy)));
}

/// What a URI says and XML cannot.
void warn_of_queries(const DiskRewrite& change, Warnings& warnings) {
  constexpr std::array<std::string_view, 5> written{"conf", "id", "mon_host", "uid", "gid"};
  const auto* storage = std::get_if<UriDiskSource>(&change.source);
  if (storage == nullptr) return;
  for (const auto& [key, value] : storage->uri.queries()) {
    if (std::ranges::find(written, key) == written.end())
      warnings.push_back(fmt::format("{}: '{}' of the URI has no place in domain XML and is left out",
                                     printable(change.target), printable(key)));
  }
}

}  // namespace

void write_slice(pugi::xml_node source, std::uint64_t bytes) {
  auto slice = append_element(append_element(source, "slices"), "slice");
  set_attribute(slice, "type", "storage");
  set_attribute(slice, "offset", "0");
  set_attribute(slice, "size", std::to_string(bytes));
}

Result<void> rewrite_disk(pugi::xml_node disk, const DiskRewrite& change, Warnings& warnings) {
  DISKFERRY_CHECK(check_source(change));
  DISKFERRY_CHECK(check_kind(disk, change));
  warn_of_old_source(disk, change, warnings);
  warn_of_queries(change, warnings);
  set_attribute(disk, "type", type_of(change.source));
  for (const char* name : {"backingStore", "mirror", "encryption", "auth"}) remove_elements(disk, name);
  rewrite_source(disk, change, warnings);
  rewrite_driver(disk, change, warnings);
  return {};
}

}  // namespace diskferry
