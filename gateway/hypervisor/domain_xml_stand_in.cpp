// STAND-IN for the branch xml: to be dropped when that is merged.
#include "gateway/hypervisor/domain_xml.hpp"

#include <pugixml.hpp>

namespace diskferry {
Result<VmDescription> read_domain(std::string_view xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size()))
    return unexpected(fail(ErrorKind::corrupt, "read domain"));
  const auto domain = document.child("domain");
  VmDescription vm;
  vm.name = domain.child_value("name");
  vm.uuid = domain.child_value("uuid");
  vm.domain_type = domain.attribute("type").value();
  const auto type = domain.child("os").child("type");
  vm.machine = type.attribute("machine").value();
  vm.architecture = type.attribute("arch").value();
  vm.emulator = domain.child("devices").child_value("emulator");
  return vm;
}
}  // namespace diskferry
