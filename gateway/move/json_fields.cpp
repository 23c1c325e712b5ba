// See the header.
#include "gateway/move/json_fields.hpp"

#include "diskferry/image_uri.hpp"

#include <fmt/format.h>
#include <limits>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {
bool has_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}
constexpr std::size_t text_bytes_max = 1u << 20;  // a request with a thousand disks has a tenth of it
constexpr std::size_t depth_max = 16;
}  // namespace

Result<json::object> parse_json_object(std::string_view text, std::string_view what) {
  const auto wrong = [&](std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "read " + std::string(what)).why(std::move(why)));
  };
  if (text.size() > text_bytes_max) return wrong("it is longer than 1 MiB");
  json::parse_options options;
  options.max_depth = depth_max;
  boost::system::error_code failed;
  json::value value = json::parse(text, failed, {}, options);
  if (failed) return wrong("it is no JSON: " + failed.message());
  if (!value.is_object()) return wrong("it is no JSON object");
  return std::move(value.get_object());
}

const json::value* JsonReader::find(std::string_view name) {
  taken_.emplace(name);
  const json::value* value = object_.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const json::array* JsonReader::array_named(std::string_view name) {
  const json::value* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) wrong(name, "is no array");
  return value->if_array();
}

void JsonReader::keep(Error error) {
  if (!error_) error_ = std::move(error);
}

void JsonReader::wrong(std::string_view name, std::string_view why) {
  keep(fail(ErrorKind::invalid_argument, "read " + what_).why(fmt::format("{} {}", printable(name), why)));
}

void JsonReader::take(std::string_view name, std::string& into) {
  const json::value* value = find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return wrong(name, "is no text");
  into = value->get_string().c_str();
  if (has_nul(value->get_string())) wrong(name, "holds a NUL character");
}

void JsonReader::take(std::string_view name, bool& into) {
  const json::value* value = find(name);
  if (value == nullptr) return;
  if (!value->is_bool()) return wrong(name, "is neither true nor false");
  into = value->get_bool();
}

void JsonReader::take(std::string_view name, std::uint64_t& into) {
  const json::value* value = find(name);
  if (value == nullptr) return;
  boost::system::error_code failed;
  const auto number = value->to_number<std::uint64_t>(failed);
  if (failed) return wrong(name, "is no whole number from 0");
  into = number;
}

void JsonReader::take(std::string_view name, std::int64_t& into) {
  const json::value* value = find(name);
  if (value == nullptr) return;
  boost::system::error_code failed;
  const auto number = value->to_number<std::int64_t>(failed);
  if (failed) return wrong(name, "is no whole number");
  into = number;
}

void JsonReader::take(std::string_view name, unsigned& into) {
  std::uint64_t wide = into;
  take(name, wide);
  if (wide > std::numeric_limits<unsigned>::max()) return wrong(name, "is too large");
  into = static_cast<unsigned>(wide);
}

void JsonReader::take(std::string_view name, std::uint16_t& into) {
  std::uint64_t wide = into;
  take(name, wide);
  if (wide > std::numeric_limits<std::uint16_t>::max()) return wrong(name, "is too large");
  into = static_cast<std::uint16_t>(wide);
}

void JsonReader::take(std::string_view name, std::map<std::string, std::string>& into) {
  const json::value* value = find(name);
  if (value == nullptr) return;
  if (!value->is_object()) return wrong(name, "is no object");
  for (const auto& [key, text] : value->get_object()) {
    if (!text.is_string()) return wrong(name, "holds something that is no text");
    if (has_nul(key) || has_nul(text.get_string())) return wrong(name, "holds a NUL character");
    into[std::string(key)] = text.get_string().c_str();
  }
}

void JsonReader::take(std::string_view name, std::vector<std::string>& into) {
  const json::array* array = array_named(name);
  if (array == nullptr) return;
  for (const auto& element : *array) {
    if (!element.is_string()) return wrong(name, "holds something that is no text");
    if (has_nul(element.get_string())) return wrong(name, "holds a NUL character");
    into.emplace_back(element.get_string().c_str());
  }
}

Result<void> JsonReader::finish() {
  for (const auto& [name, value] : object_) {
    if (!taken_.contains(std::string_view(name))) wrong(name, "is not known");
  }
  if (error_) return unexpected(*std::move(error_));
  return {};
}

void JsonWriter::take(std::string_view name, const std::map<std::string, std::string>& value) {
  json::object object;
  for (const auto& [key, text] : value) object[key] = text;
  object_[name] = std::move(object);
}

void JsonWriter::take(std::string_view name, const std::vector<std::string>& value) {
  object_[name] = json::array(value.begin(), value.end());
}

std::string serialized(const json::object& object) {
  return json::serialize(object);
}

}  // namespace diskferry
