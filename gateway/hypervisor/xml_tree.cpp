#include "gateway/hypervisor/xml_tree.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include <pugixml.hpp>

namespace diskferry {
namespace {

class StringWriter final : public pugi::xml_writer {
 public:
  void write(const void* data, std::size_t size) override {
    text_.append(static_cast<const char*>(data), size);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

constexpr unsigned parse_flags = pugi::parse_full | pugi::parse_ws_pcdata | pugi::parse_fragment;
constexpr unsigned print_flags =
    pugi::format_raw | pugi::format_attribute_single_quote | pugi::format_no_declaration;

Error bad_xml(std::string_view what, std::string why) {
  return fail(ErrorKind::corrupt, "read", std::string(what)).why(std::move(why));
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}
bool is_blank_text(const pugi::xml_node& node) {
  return node.type() == pugi::node_pcdata && is_blank(node.value());
}

/// Walks without recursion: a hostile document is as deep as it likes.
bool is_deeper_than(const pugi::xml_node& root, std::size_t limit) {
  std::size_t depth = 0;
  pugi::xml_node node = root;
  while (node) {
    if (const auto child = node.first_child()) {
      if (++depth > limit) return true;
      node = child;
      continue;
    }
    while (node && node != root && !node.next_sibling()) {
      node = node.parent();
      --depth;
    }
    if (node == root) break;
    node = node.next_sibling();
  }
  return false;
}

Result<void> check_top(std::string_view what, const pugi::xml_document& document) {
  std::size_t roots = 0;
  for (const auto& node : document.children()) {
    if (node.type() == pugi::node_doctype)
      return unexpected(fail(ErrorKind::unsupported, "read", std::string(what))
                            .why("a document type (<!DOCTYPE>) is not taken: entities could name files"));
    if (node.type() == pugi::node_element) ++roots;
    if ((node.type() == pugi::node_pcdata || node.type() == pugi::node_cdata) && !is_blank(node.value()))
      return unexpected(bad_xml(what, "there is text outside of the root element"));
  }
  if (roots != 1)
    return unexpected(bad_xml(what, fmt::format("it has {} root elements instead of one", roots)));
  return {};
}

/// The white space in front of a node, from its line break on; nullopt where it follows its neighbour
/// directly.
std::optional<std::string> line_start(const pugi::xml_node& node) {
  const auto before = node.previous_sibling();
  if (!before || !is_blank_text(before)) return std::nullopt;
  const std::string_view text = before.value();
  const auto line = text.rfind('\n');
  if (line == std::string_view::npos) return std::nullopt;
  return std::string(text.substr(line));
}

void put_text(pugi::xml_node text, const std::string& value) {
  text.set_value(value.c_str());
}

}  // namespace

Result<void> parse_xml(std::string_view xml, std::string_view what, pugi::xml_document& into) {
  if (xml.size() > domain_xml_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "read", std::string(what))
            .why(fmt::format("{} bytes long, the limit is {}", xml.size(), domain_xml_bytes_max)));
  if (xml.find('\0') != std::string_view::npos || !is_utf8(xml))
    return unexpected(bad_xml(what, "it is not UTF-8 text"));
  const auto parsed = into.load_buffer(xml.data(), xml.size(), parse_flags, pugi::encoding_utf8);
  if (!parsed)
    return unexpected(bad_xml(what, fmt::format("it is not well-formed XML: {}", parsed.description()))
                          .at(static_cast<std::uint64_t>(std::max<std::ptrdiff_t>(0, parsed.offset)), 1));
  if (is_deeper_than(into, domain_xml_depth_max))
    return unexpected(fail(ErrorKind::too_large, "read", std::string(what))
                          .why(fmt::format("elements are nested more than {} deep", domain_xml_depth_max)));
  // Only numbers of characters ("&#55296;") make text of UTF-8 into something else.
  if (xml.contains("&#") && !is_utf8(xml_text(into)))
    return unexpected(bad_xml(what, "a character is given by a number that no character has"));
  return check_top(what, into);
}

std::string xml_text(const pugi::xml_document& document) {
  StringWriter writer;
  document.save(writer, "", print_flags, pugi::encoding_utf8);
  return writer.take();
}

std::string xml_text(const pugi::xml_node& element) {
  StringWriter writer;
  element.print(writer, "", print_flags, pugi::encoding_utf8);
  return writer.take();
}

void remove_element(pugi::xml_node element) {
  auto parent = element.parent();
  if (const auto before = element.previous_sibling(); is_blank_text(before)) parent.remove_child(before);
  parent.remove_child(element);
  const bool is_empty =
      std::ranges::all_of(parent.children(), [](const auto& node) { return is_blank_text(node); });
  if (is_empty) remove_content(parent);
}

void remove_elements(pugi::xml_node parent, const char* name) {
  for (auto child = parent.child(name); child;) {
    const auto next = child.next_sibling(name);
    remove_element(child);
    child = next;
  }
}

void remove_content(pugi::xml_node element) {
  element.remove_children();
}

pugi::xml_node append_element(pugi::xml_node parent, const char* name) {
  const auto last = parent.last_child();
  if (!last) {
    const auto line = line_start(parent);
    if (line) put_text(parent.append_child(pugi::node_pcdata), *line + "  ");
    const auto added = parent.append_child(name);
    if (line) put_text(parent.append_child(pugi::node_pcdata), *line);
    return added;
  }
  if (!is_blank_text(last) || !last.previous_sibling()) return parent.append_child(name);
  const auto line = line_start(last.previous_sibling());
  const auto added = parent.insert_child_before(name, last);
  if (line) put_text(parent.insert_child_before(pugi::node_pcdata, added), *line);
  return added;
}

pugi::xml_node insert_element_before(pugi::xml_node sibling, const char* name) {
  auto parent = sibling.parent();
  const auto line = line_start(sibling);
  const auto added = parent.insert_child_before(name, sibling);
  if (line) put_text(parent.insert_child_before(pugi::node_pcdata, sibling), *line);
  return added;
}

void set_attribute(pugi::xml_node element, const char* name, std::string_view value) {
  auto attribute = element.attribute(name);
  if (value.empty()) {
    element.remove_attribute(attribute);
    return;
  }
  if (!attribute) attribute = element.append_attribute(name);
  attribute.set_value(std::string(value).c_str());
}

pugi::xml_node replace_element(pugi::xml_node element, const pugi::xml_node& by) {
  auto parent = element.parent();
  const auto added = parent.insert_copy_before(by, element);
  parent.remove_child(element);
  return added;
}

}  // namespace diskferry
