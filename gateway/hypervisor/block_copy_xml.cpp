// The <disk> that a running disk is copied to by libvirt (virDomainBlockCopy): its source alone counts, all
// else of the disk stays as it is.
#include "gateway/hypervisor/domain_edit.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <string>

#include <pugixml.hpp>

namespace diskferry {

Result<std::string> block_copy_xml(const std::string& target, const NbdDiskSource& to, unsigned reconnect_s) {
  if (!is_plain_text(target))
    return unexpected(fail(ErrorKind::invalid_argument, "write", "the definition of a copy")
                          .why("XML cannot hold the disk's name"));
  DISKFERRY_CHECK(check_source({.target = target, .source = to}));
  pugi::xml_document document;
  auto disk = document.append_child("disk");
  set_attribute(disk, "type", type_of(DiskSource(to)));
  set_attribute(disk, "device", "disk");
  auto driver = disk.append_child("driver");
  set_attribute(driver, "name", "qemu");
  set_attribute(driver, "type", "raw");
  auto source = disk.append_child("source");
  write_source(source, to);
  // Known to later versions of libvirt than 9.0, which leaves it out.
  if (reconnect_s != 0) set_attribute(source.append_child("reconnect"), "delay", std::to_string(reconnect_s));
  set_attribute(disk.append_child("target"), "dev", target);
  return xml_text(document);
}

}  // namespace diskferry
