// XML as a tree that can be printed as it was read: parsing within bounds, and edits that keep the layout
// around them. For the files of this room that deal with domain XML; pugixml's own header stays in the .cpp
// files.
#pragma once

#include "diskferry/error.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace pugi {
class xml_document;
class xml_node;
}  // namespace pugi

namespace diskferry {

/// No larger document is read; libvirt itself sends none.
inline constexpr std::size_t domain_xml_bytes_max = std::size_t{4} << 20;
/// Elements within elements. A domain has about ten, its metadata may hold more, a backing chain two a layer.
inline constexpr std::size_t domain_xml_depth_max = 512;

/// Reads a document of UTF-8 text with one root element; white space and comments are kept. A document type
/// (and so every entity of its own) is refused. `what` names the document in errors. Errors: corrupt (not
/// XML, with the offset), too_large, unsupported (a document type).
Result<void> parse_xml(std::string_view xml, std::string_view what, pugi::xml_document& into);

/// The document as text: what was not changed reads as it was given, but for the quotes of attributes (single
/// ones, as libvirt writes) and for characters that were escaped without need.
std::string xml_text(const pugi::xml_document& document);
/// One element with all that is in it.
std::string xml_text(const pugi::xml_node& element);

// Edits. All keep the indentation of libvirt's layout, two spaces a level, and add none where the document
// has none.

/// Takes the element away, with the line it stands on.
void remove_element(pugi::xml_node element);
/// Takes all its children of this name away.
void remove_elements(pugi::xml_node parent, const char* name);
/// Empties an element; its attributes stay.
void remove_content(pugi::xml_node element);
/// A new element as the last child of `parent`.
pugi::xml_node append_element(pugi::xml_node parent, const char* name);
/// A new element on the line before `sibling`.
pugi::xml_node insert_element_before(pugi::xml_node sibling, const char* name);
/// Sets an attribute, new ones behind the others; an empty value takes it away.
void set_attribute(pugi::xml_node element, const char* name, std::string_view value);
/// Replaces an element by a copy of another one, possibly of another document.
pugi::xml_node replace_element(pugi::xml_node element, const pugi::xml_node& by);

}  // namespace diskferry
