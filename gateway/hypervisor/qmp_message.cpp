// Reading and writing the monitor's lines.
#include "gateway/hypervisor/qmp_message.hpp"

#include <array>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {
constexpr auto operation = "read QEMU's monitor";

Error protocol_error(std::string why) {
  return fail(ErrorKind::protocol, operation).why(std::move(why));
}

std::string_view text_at(const json::object& object, std::string_view key) noexcept {
  const auto* value = object.if_contains(key);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

std::optional<std::uint64_t> number_at(const json::object& object, std::string_view key) noexcept {
  const auto* value = object.if_contains(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = value->if_uint64()) return *number;
  if (const auto* number = value->if_int64(); number != nullptr && *number >= 0)
    return static_cast<std::uint64_t>(*number);
  return std::nullopt;
}

const json::object* object_at(const json::object& object, std::string_view key) noexcept {
  const auto* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}

QmpGreeting greeting_from(const json::object& said) {
  QmpGreeting greeting;
  const auto* version = object_at(said, "version");
  const auto* qemu = version == nullptr ? nullptr : object_at(*version, "qemu");
  if (qemu == nullptr) return greeting;
  const auto part = [qemu](std::string_view key) {
    return static_cast<std::uint32_t>(number_at(*qemu, key).value_or(0));
  };
  greeting.version = {.major = part("major"), .minor = part("minor"), .micro = part("micro")};
  return greeting;
}

QmpEvent event_from(json::object& said) {
  QmpEvent event{.name = std::string(text_at(said, "event"))};
  if (auto* data = said.if_contains("data"); data != nullptr && data->is_object())
    event.data = std::move(data->get_object());
  if (const auto* at = object_at(said, "timestamp"))
    event.qemu_us =
        number_at(*at, "seconds").value_or(0) * 1'000'000 + number_at(*at, "microseconds").value_or(0);
  return event;
}

Error error_from(const json::value& said) {
  const auto* object = said.if_object();
  if (object == nullptr) return protocol_error("an error that is not an object");
  const auto description = text_at(*object, "desc");
  return fail(kind_of_qmp(text_at(*object, "class"), description), "run a command of QEMU's")
      .why(std::string(description));
}

struct Phrase {
  std::string_view text;
  ErrorKind kind;
};
// QEMU has one class for nearly everything; these are its words since 2.x.
constexpr std::array phrases{
    Phrase{"lock", ErrorKind::in_use},  // Failed to get "write" lock
    Phrase{"in use", ErrorKind::in_use},
    Phrase{"is busy", ErrorKind::in_use},
    Phrase{"already exists", ErrorKind::already_exists},
    Phrase{"Duplicate", ErrorKind::already_exists},
    Phrase{"No space left", ErrorKind::no_space},
    Phrase{"Permission denied", ErrorKind::permission},
    Phrase{"Connection refused", ErrorKind::gone},
    Phrase{"Invalid parameter", ErrorKind::invalid_argument},
    Phrase{"Parameter '", ErrorKind::invalid_argument},
    Phrase{"No such file", ErrorKind::not_found},
    Phrase{"Cannot find", ErrorKind::not_found},
    Phrase{"Failed to find", ErrorKind::not_found},
    Phrase{"not found", ErrorKind::not_found},
    Phrase{"not supported", ErrorKind::unsupported},
    Phrase{"Unknown driver", ErrorKind::unsupported},
};
}  // namespace

ErrorKind kind_of_qmp(std::string_view error_class, std::string_view description) noexcept {
  if (error_class == "CommandNotFound" || error_class == "KVMMissingCap") return ErrorKind::unsupported;
  if (error_class == "DeviceNotFound" || error_class == "DeviceNotActive") return ErrorKind::not_found;
  for (const auto& phrase : phrases) {
    if (description.contains(phrase.text)) return phrase.kind;
  }
  return ErrorKind::io;
}

Result<QmpMessage> parse_qmp(std::string_view line) {
  if (line.size() > qmp_line_bytes_max)
    return unexpected(fail(ErrorKind::too_large, operation).why("the line has no end"));
  json::parse_options options;
  options.max_depth = qmp_depth_max;
  json::error_code failed;
  json::value value = json::parse(line, failed, {}, options);
  if (failed == json::error::too_deep)
    return unexpected(fail(ErrorKind::too_large, operation).why("it is nested too deeply"));
  if (failed) return unexpected(protocol_error("no JSON: " + failed.message()));
  auto* said = value.if_object();
  if (said == nullptr) return unexpected(protocol_error("not an object"));
  if (said->contains("event")) return event_from(*said);
  if (const auto* greeting = object_at(*said, "QMP")) return greeting_from(*greeting);
  const auto id = number_at(*said, "id");
  if (const auto* error = said->if_contains("error"))
    return QmpReply{.id = id, .result = unexpected(error_from(*error))};
  if (auto* returned = said->if_contains("return"))
    return QmpReply{.id = id, .result = Result<json::value>(std::move(*returned))};
  return unexpected(protocol_error("neither a reply nor an event"));
}

std::string qmp_line(std::uint64_t id, std::string_view command, const json::object& arguments) {
  json::object said{{"execute", command}, {"id", id}};
  if (!arguments.empty()) said["arguments"] = arguments;
  return json::serialize(said) + "\n";
}

}  // namespace diskferry
