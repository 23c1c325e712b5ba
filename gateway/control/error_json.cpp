// Errors over the API: what the other end reads is what was written here, kind, texts, steps and remedy, so
// that a command says the same whether the gateway is this process or another host's.
#include "diskferry/image_uri.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/status.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

namespace diskferry::control {
namespace json = boost::json;
namespace {

json::string shown(const std::string& text) {
  return json::string(is_utf8(text) ? text : printable(text));
}

std::string text_of(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->as_string()) : std::string();
}

std::optional<ErrorKind> kind_named(std::string_view name) {
  const auto found = std::ranges::find(error_kinds, name, &ErrorKindRow::name);
  if (found == error_kinds.end()) return std::nullopt;
  return found->kind;
}

}  // namespace

std::string to_json(const Error& error) {
  json::object inner;
  inner["kind"] = row_of(error.kind()).name;
  inner["message"] = shown(error.message());
  inner["operation"] = shown(error.operation());
  if (!error.object().empty()) inner["object"] = shown(error.object());
  if (!error.why().empty()) inner["why"] = shown(error.why());
  if (!error.remedy().empty()) inner["remedy"] = shown(error.remedy());
  if (error.cause() && error.cause().category() == std::system_category())
    inner["errno"] = error.cause().value();
  if (!error.steps().empty()) {
    json::array steps;
    for (const std::string& step : error.steps()) steps.emplace_back(shown(step));
    inner["steps"] = std::move(steps);
  }
  if (error.position()) {
    inner["offset"] = error.position()->offset;
    inner["length"] = error.position()->length;
  }
  return json::serialize(json::object{{"error", std::move(inner)}});
}

Error error_from_json(std::string_view text, unsigned status) {
  boost::system::error_code failed;
  const json::value document = json::parse(json::string_view(text.data(), text.size()), failed);
  const json::value* found =
      !failed && document.is_object() ? document.as_object().if_contains("error") : nullptr;
  if (found == nullptr || !found->is_object())
    return fail(ErrorKind::protocol, "ask gateway")
        .why(fmt::format("it answered {} with something that is no error of ours", status));
  const json::object& inner = found->as_object();
  const auto kind = kind_named(text_of(inner, "kind"));
  Error error(kind.value_or(ErrorKind::io), text_of(inner, "operation"), text_of(inner, "object"));
  error = std::move(error).why(text_of(inner, "why")).remedy(text_of(inner, "remedy"));
  if (const json::value* number = inner.if_contains("errno"); number != nullptr && number->is_int64())
    error = std::move(error).cause(errno_code(static_cast<int>(number->as_int64())));
  if (const json::value* steps = inner.if_contains("steps"); steps != nullptr && steps->is_array()) {
    for (const json::value& step : steps->as_array()) {
      if (step.is_string()) error = std::move(error).in(std::string(step.as_string()));
    }
  }
  const json::value* offset = inner.if_contains("offset");
  const json::value* length = inner.if_contains("length");
  boost::system::error_code wrong;
  if (offset != nullptr && length != nullptr) {
    const auto at = offset->to_number<std::uint64_t>(wrong);
    const auto bytes = wrong ? 0 : length->to_number<std::uint64_t>(wrong);
    if (!wrong) error = std::move(error).at(at, bytes);
  }
  return error;
}

}  // namespace diskferry::control
