// One list of fields for each value, used for writing and for reading it.
#include "gateway/control/json.hpp"

#include "diskferry/error_kinds.hpp"
#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <set>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_to.hpp>

namespace diskferry::control {
namespace json = boost::json;
namespace {

/// A document of another room, as a text in the struct and as JSON on the wire.
struct Document {
  std::string& text;
};

/// JSON is UTF-8; what is not, such as the name of a file, keeps its meaning for people.
json::string utf8(const std::string& text) {
  return json::string(is_utf8(text) ? text : printable(text));
}

class Writer {
 public:
  json::object object{};

  void required(const char* name, const std::string& value) { object[name] = utf8(value); }
  void field(const char* name, const std::string& value) {
    if (!value.empty()) object[name] = utf8(value);
  }
  void field(const char* name, const bool& value) { object[name] = value; }
  void field(const char* name, const std::int64_t& value) { object[name] = value; }
  void field(const char* name, const std::uint64_t& value) { object[name] = value; }
  void field(const char* name, const std::vector<std::string>& value) {
    json::array list;
    for (const std::string& one : value) list.emplace_back(utf8(one));
    object[name] = std::move(list);
  }
  template <class T>
  void field(const char* name, const std::optional<T>& value) {
    if (value) object[name] = *value;
  }
  void field(const char* name, const Document& value) {
    boost::system::error_code error;
    json::value parsed = json::parse(value.text, error);
    object[name] = error ? json::value(utf8(value.text)) : std::move(parsed);
  }
  template <class T>
  void list(const char* name, const std::vector<T>& values);
};

class Reader {
 public:
  Reader(const json::object& object, Unknown unknown, std::string place)
      : object_(object), unknown_(unknown), place_(std::move(place)) {}

  void required(const char* name, std::string& into) {
    if (!object_.contains(name)) wrong(name, "is missing");
    field(name, into);
    if (into.empty()) wrong(name, "is empty");
  }
  void field(const char* name, std::string& into) {
    if (const json::value* value = take(name)) {
      if (!value->is_string()) return wrong(name, "must be a text");
      into = value->as_string().c_str();
      if (into.size() != value->as_string().size()) wrong(name, "must not have a NUL in it");
    }
  }
  void field(const char* name, bool& into) {
    if (const json::value* value = take(name)) {
      if (!value->is_bool()) return wrong(name, "must be true or false");
      into = value->as_bool();
    }
  }
  template <class T>
    requires std::is_integral_v<T>
  void field(const char* name, T& into) {
    if (const json::value* value = take(name)) {
      boost::system::error_code error;
      into = value->to_number<T>(error);
      if (error || value->is_double())
        wrong(name, fmt::format("must be a whole number from {} to {}", std::numeric_limits<T>::min(),
                                std::numeric_limits<T>::max()));
    }
  }
  void field(const char* name, std::vector<std::string>& into) {
    const json::value* value = take(name);
    if (value == nullptr) return;
    into.clear();
    if (!value->is_array()) return wrong(name, "must be a list of texts");
    for (const json::value& one : value->as_array()) {
      if (!one.is_string()) return wrong(name, "must be a list of texts");
      into.emplace_back(one.as_string());
    }
  }
  template <class T>
  void field(const char* name, std::optional<T>& into) {
    if (object_.contains(name)) field(name, into.emplace());
  }
  void field(const char* name, Document into) {
    if (const json::value* value = take(name)) into.text = json::serialize(*value);
  }
  template <class T>
  void list(const char* name, std::vector<T>& into);

  Result<void> finish() {
    for (const auto& [key, value] : object_) {
      if (unknown_ == Unknown::refused && !taken_.contains(std::string(key)))
        wrong(std::string(key), "is not a field of this request");
    }
    if (problem_.empty()) return {};
    return unexpected(fail(ErrorKind::invalid_argument, "read JSON").why(problem_));
  }

 private:
  const json::value* take(const char* name) {
    const json::value* value = object_.if_contains(name);
    if (value != nullptr) taken_.insert(name);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
  void wrong(const std::string& name, std::string_view what) {
    if (problem_.empty()) problem_ = fmt::format("'{}{}' {}", place_, printable(name), what);
  }

  const json::object& object_;
  Unknown unknown_;
  std::string place_;
  std::set<std::string> taken_{};
  std::string problem_{};
};

// The fields. `V` is a Writer or a Reader, `T` the value, const where it is written.

template <class T, class U>
concept Same = std::is_same_v<std::remove_const_t<T>, U>;

/// The same for both directions: a Reader writes into it.
template <class T>
Document document(T& text) {
  return {const_cast<std::string&>(text)};
}

void fields(auto& v, Same<GatewayInfo> auto& x) {
  v.field("name", x.name);
  v.field("version", x.version);
  v.field("host-id", x.host_id);
  v.field("time-ms", x.time_ms);
  v.field("nbd-addresses", x.nbd_addresses);
  v.field("features", x.features);
}
void fields(auto& v, Same<ExportRequest> auto& x) {
  v.required("name", x.name);
  v.required("image", x.image);
  v.field("format", x.format);
  v.field("description", x.description);
  v.field("writable", x.writable);
  v.field("require-tls", x.requires_tls);
  v.field("allow", x.allow);
}
void fields(auto& v, Same<ExportDescription> auto& x) {
  v.required("name", x.name);
  v.field("image", x.image);
  v.field("format", x.format);
  v.field("description", x.description);
  v.field("writable", x.writable);
  v.field("require-tls", x.requires_tls);
  v.field("allow", x.allow);
  v.field("size", x.size_bytes);
  v.field("clients", x.clients);
  v.field("configured", x.is_configured);
  v.field("addresses", x.addresses);
  v.field("waiting", x.waiting);
}
void fields(auto& v, Same<JobRequest> auto& x) {
  v.required("kind", x.kind);
  v.field("request", document(x.request_json));
  v.field("watch-seconds", x.watch_seconds);
}
void fields(auto& v, Same<JobDescription> auto& x) {
  v.required("id", x.id);
  v.field("kind", x.kind);
  v.field("subject", x.subject);
  v.field("phase", x.phase);
  v.field("status", x.status);
  v.field("error", x.error);
  v.field("created-ms", x.created_ms);
  v.field("updated-ms", x.updated_ms);
  v.field("request", document(x.request_json));
  v.field("state", document(x.state_json));
  v.field("report", document(x.report_json));
  v.field("progress", document(x.progress_json));
}
void fields(auto& v, Same<JobSettings> auto& x) {
  v.field("rate", x.rate_bytes_per_s);
  v.field("max-pause-ms", x.max_pause_ms);
  v.field("max-write-latency-ms", x.max_write_latency_ms);
  v.field("deadline-s", x.deadline_s);
  v.field("on-read-error", x.on_read_error);
  v.field("window", x.window_bytes);
  v.field("connections", x.connections);
}
void fields(auto& v, Same<JobEvent> auto& x) {
  v.field("job", x.job);
  v.field("sequence", x.sequence);
  v.field("time-ms", x.time_ms);
  v.required("kind", x.kind);
  v.field("body", document(x.body_json));
}
void fields(auto& v, Same<std::vector<ExportDescription>> auto& x) {
  v.list("exports", x);
}
void fields(auto& v, Same<std::vector<JobDescription>> auto& x) {
  v.list("jobs", x);
}

template <class T>
json::object to_object(const T& value) {
  Writer writer;
  fields(writer, value);
  return std::move(writer.object);
}
template <class T>
Result<T> from_object(const json::object& object, Unknown unknown, const std::string& place) {
  T value;
  Reader reader(object, unknown, place);
  fields(reader, value);
  DISKFERRY_CHECK(reader.finish());
  return value;
}

template <class T>
void Writer::list(const char* name, const std::vector<T>& values) {
  json::array all;
  for (const T& one : values) all.emplace_back(to_object(one));
  object[name] = std::move(all);
}
template <class T>
void Reader::list(const char* name, std::vector<T>& into) {
  const json::value* value = take(name);
  if (value == nullptr || !value->is_array()) return wrong(name, "must be a list");
  for (const json::value& one : value->as_array()) {
    if (!one.is_object()) return wrong(name, "must be a list of objects");
    auto read = from_object<T>(one.as_object(), unknown_, fmt::format("{}.", name));
    if (!read) {
      if (problem_.empty()) problem_ = read.error().why();
      return;
    }
    into.push_back(std::move(*read));
  }
}

}  // namespace

#define DISKFERRY_TO_JSON(Type)               \
  std::string to_json(const Type& value) {    \
    return json::serialize(to_object(value)); \
  }
DISKFERRY_TO_JSON(GatewayInfo)
DISKFERRY_TO_JSON(ExportRequest)
DISKFERRY_TO_JSON(ExportDescription)
DISKFERRY_TO_JSON(std::vector<ExportDescription>)
DISKFERRY_TO_JSON(JobRequest)
DISKFERRY_TO_JSON(JobDescription)
DISKFERRY_TO_JSON(std::vector<JobDescription>)
DISKFERRY_TO_JSON(JobSettings)
DISKFERRY_TO_JSON(JobEvent)
#undef DISKFERRY_TO_JSON

template <class T>
Result<T> from_json(std::string_view text, Unknown unknown, std::size_t depth_max) {
  json::parse_options options;
  options.max_depth = depth_max;
  boost::system::error_code error;
  const json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error == json::error::too_deep)
    return unexpected(fail(ErrorKind::too_large, "read JSON").why("it is nested too deep"));
  if (error) return unexpected(fail(ErrorKind::invalid_argument, "read JSON").why(error.message()));
  if (!value.is_object())
    return unexpected(fail(ErrorKind::invalid_argument, "read JSON").why("it must be an object"));
  return from_object<T>(value.as_object(), unknown, {});
}
template Result<GatewayInfo> from_json(std::string_view, Unknown, std::size_t);
template Result<ExportRequest> from_json(std::string_view, Unknown, std::size_t);
template Result<ExportDescription> from_json(std::string_view, Unknown, std::size_t);
template Result<std::vector<ExportDescription>> from_json(std::string_view, Unknown, std::size_t);
template Result<JobRequest> from_json(std::string_view, Unknown, std::size_t);
template Result<JobDescription> from_json(std::string_view, Unknown, std::size_t);
template Result<std::vector<JobDescription>> from_json(std::string_view, Unknown, std::size_t);
template Result<JobSettings> from_json(std::string_view, Unknown, std::size_t);
template Result<JobEvent> from_json(std::string_view, Unknown, std::size_t);

std::string_view to_string(JobAction action) noexcept {
  constexpr std::array<std::string_view, 5> words{"cancel", "pause", "resume", "commit", "fallback"};
  return words[static_cast<std::size_t>(action)];
}
}  // namespace diskferry::control
