// What a <source> of libvirt's XML names, as the rest of the program names images: a path, or a URI. Used
// where domain XML is read; pure.
#pragma once

#include <string>
#include <string_view>

namespace pugi {
class xml_node;
}

namespace diskferry {

struct SourceName {
  std::string name{};  ///< an absolute path or a URI; empty where there is no such name, or no source at all
  std::string text{};  ///< the same in words; empty: no source
};

/// The source within `holder` (<disk>, <backingStore>, <mirror> or <nvram>), whose attribute type is `type`.
SourceName read_source(const pugi::xml_node& holder, std::string_view type);

/// "0000:03:00.0" from an <address> of a PCI device; empty where it is none.
std::string pci_address(const pugi::xml_node& address);

}  // namespace diskferry
