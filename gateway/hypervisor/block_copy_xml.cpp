// The <disk> that a running disk is copied to by libvirt (virDomainBlockCopy): its source and format alone
// count, all else of the disk stays as it is.
#include "gateway/hypervisor/disk_source.hpp"
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <string>

#include <pugixml.hpp>

namespace diskferry {

Result<std::string> block_copy_xml(const DiskRewrite& copy, unsigned reconnect_s) {
  if (!is_plain_text(copy.target))
    return unexpected(fail(ErrorKind::invalid_argument, "write", "the definition of a copy")
                          .why("XML cannot hold the disk's name"));
  DISKFERRY_CHECK(check_source(copy));
  pugi::xml_document document;
  auto disk = document.append_child("disk");
  set_attribute(disk, "type", type_of(copy.source));
  set_attribute(disk, "device", "disk");
  auto driver = disk.append_child("driver");
  set_attribute(driver, "name", "qemu");
  set_attribute(driver, "type", format_of(copy.source));
  auto source = disk.append_child("source");
  write_source(source, copy.source);
  if (copy.slice_bytes != 0) write_slice(source, copy.slice_bytes);
  // Known to later versions of libvirt than 9.0, which leaves it out.
  if (reconnect_s != 0 && std::holds_alternative<NbdDiskSource>(copy.source))
    set_attribute(source.append_child("reconnect"), "delay", std::to_string(reconnect_s));
  set_attribute(disk.append_child("target"), "dev", copy.target);
  return xml_text(document);
}

Result<std::string> source_name(const DiskSource& source) {
  DISKFERRY_CHECK(check_source({.source = source}));
  pugi::xml_document document;
  auto disk = document.append_child("disk");
  write_source(disk.append_child("source"), source);
  return read_source(disk, type_of(source)).name;
}

}  // namespace diskferry
