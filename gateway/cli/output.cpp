// JSON and name-value lines. Hostile names (snapshots, bitmaps, paths) come through here: JSON escapes them,
// FieldList makes them printable.
#include "gateway/cli/output.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/serialize.hpp>

namespace diskferry::cli {
namespace json = boost::json;

namespace {

/// A string that JSON can hold: file names and names in images need not be UTF-8. What a terminal acts on is
/// escaped as JSON does it, DEL and the control characters from 0x80 to 0x9f too (C2 80 to C2 9F in UTF-8).
std::string serialize_string(std::string_view text) {
  const std::string plain =
      json::serialize(json::string(is_utf8(text) ? std::string(text) : printable(text)));
  std::string escaped;
  escaped.reserve(plain.size());
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const auto byte = static_cast<unsigned char>(plain[i]);
    const auto next = i + 1 < plain.size() ? static_cast<unsigned char>(plain[i + 1]) : 0;
    if (byte == 0x7f) {
      escaped += "\\u007f";
    } else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
      escaped += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      escaped += plain[i];
    }
  }
  return escaped;
}

void print_value(std::ostream& out, const json::value& value, std::size_t depth) {
  const std::string inner((depth + 1) * 2, ' ');
  const std::string outer(depth * 2, ' ');
  std::string_view separator;
  if (const auto* object = value.if_object(); object != nullptr && !object->empty()) {
    out << "{";
    for (const auto& field : *object) {
      out << separator << "\n" << inner << serialize_string(field.key()) << ": ";
      print_value(out, field.value(), depth + 1);
      separator = ",";
    }
    out << "\n" << outer << "}";
  } else if (const auto* array = value.if_array(); array != nullptr && !array->empty()) {
    out << "[";
    for (const auto& element : *array) {
      out << separator << "\n" << inner;
      print_value(out, element, depth + 1);
      separator = ",";
    }
    out << "\n" << outer << "]";
  } else if (const auto* text = value.if_string()) {
    out << serialize_string(*text);
  } else if (const auto* number = value.if_double()) {
    out << fmt::format("{:.6f}", *number);  // json::serialize writes 3E-3
  } else {
    out << json::serialize(value);
  }
}

}  // namespace

void print_json(std::ostream& out, const json::value& value) {
  print_value(out, value, 0);
  out << "\n";
}

std::string to_json_line(const json::value& value) {
  if (const auto* text = value.if_string()) return serialize_string(*text);
  const auto* object = value.if_object();
  if (object == nullptr) return json::serialize(value);
  std::string line = "{";
  for (const auto& field : *object) {
    if (line.size() > 1) line += ",";
    line += serialize_string(field.key()) + ":" + to_json_line(field.value());
  }
  return line + "}";
}

void FieldList::add(std::string_view name, std::string value) {
  if (!value.empty()) fields_.emplace_back(name, std::move(value));
}

void FieldList::print(std::ostream& out, std::string_view indent) const {
  std::size_t width = 0;
  for (const auto& [name, value] : fields_) width = std::max(width, name.size());
  for (const auto& [name, value] : fields_)
    out << indent << fmt::format("{:<{}}  {}\n", name + ":", width + 1, printable(value));
}

std::string bytes_for_people(std::uint64_t bytes) {
  return bytes == 1    ? std::string("1 byte")
         : bytes < kib ? fmt::format("{} bytes", bytes)
                       : fmt::format("{} ({} bytes)", format_bytes(bytes), bytes);
}

}  // namespace diskferry::cli
