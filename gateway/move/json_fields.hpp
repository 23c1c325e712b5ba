// Values of ours in and out of JSON, by one list of fields for both directions. Used by the texts that are
// stored with a move and that other gateways send; internal to this room.
//
//   template <class Fields>
//   static void list_fields(Fields& fields, ValueOf<ReachRequest> auto& request) {
//     fields.take("address", request.address);
//   }
//   std::string to_json(const ReachRequest& request) { return write_json(request); }
//   Result<ReachRequest> parse_reach_request(std::string_view text) {
//     return read_json<ReachRequest>(text, "the request");
//   }
//
// Read are: each field at most once, of the right kind, and none that nobody knows. One that is absent leaves
// the value as it was: the default.
#pragma once

#include "diskferry/error.hpp"

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

namespace diskferry {

/// `T`, constant or not.
template <class T, class U>
concept ValueOf = std::same_as<std::remove_cv_t<T>, U>;

/// The values of an enumeration that have a name in JSON.
template <class Enum>
struct Words {
  std::span<const Enum> all;
  std::string_view (*text)(Enum) noexcept;
};

/// The object in `text`. Errors: invalid_argument.
Result<boost::json::object> parse_json_object(std::string_view text, std::string_view what);

/// Takes fields out of an object; the first that is wrong is remembered, and finish() tells of it.
class JsonReader {
 public:
  JsonReader(const boost::json::object& object, std::string_view what) : object_(object), what_(what) {}

  void take(std::string_view name, std::string& into);
  void take(std::string_view name, bool& into);
  void take(std::string_view name, std::uint64_t& into);
  void take(std::string_view name, std::int64_t& into);
  void take(std::string_view name, unsigned& into);
  void take(std::string_view name, std::uint16_t& into);
  void take(std::string_view name, std::map<std::string, std::string>& into);
  void take(std::string_view name, std::vector<std::string>& into);
  template <class Enum>
  void take(std::string_view name, Enum& into, const Words<Enum>& words) {
    std::string word;
    take(name, word);
    if (find(name) == nullptr) return;
    for (const Enum each : words.all) {
      if (words.text(each) == word) {
        into = each;
        return;
      }
    }
    wrong(name, "is no word that is known here");
  }
  /// As take(), where there is no default.
  template <class Enum>
  void take_required(std::string_view name, Enum& into, const Words<Enum>& words) {
    if (find(name) == nullptr) return wrong(name, "is missing");
    take(name, into, words);
  }
  template <class T>
  void take_object(std::string_view name, T& into) {
    if (const auto* value = find(name)) read(name, *value, into);
  }
  /// As take(); the writer leaves it out where it is empty.
  void take_unless_empty(std::string_view name, auto& into) { take(name, into); }
  template <class T>
  void take_list(std::string_view name, std::vector<T>& into) {
    const auto* array = array_named(name);
    if (array == nullptr) return;
    for (const auto& element : *array) read(name, element, into.emplace_back());
  }
  template <class T>
  void take_optional(std::string_view name, std::optional<T>& into) {
    if (const auto* value = find(name)) read(name, *value, into.emplace());
  }
  /// The first thing that was wrong, or a field that nobody took. Errors: invalid_argument.
  Result<void> finish();

 private:
  template <class T>
  void read(std::string_view name, const boost::json::value& value, T& into) {
    if (!value.is_object()) return wrong(name, "holds something that is no object");
    JsonReader inner(value.get_object(), name);
    list_fields(inner, into);
    if (auto done = inner.finish(); !done) keep(std::move(done).error());
  }
  const boost::json::value* find(std::string_view name);
  const boost::json::array* array_named(std::string_view name);
  void wrong(std::string_view name, std::string_view why);
  void keep(Error error);

  const boost::json::object& object_;
  std::string what_;
  std::set<std::string, std::less<>> taken_{};
  std::optional<Error> error_{};
};

/// Puts fields into an object.
class JsonWriter {
 public:
  void take(std::string_view name, const std::string& value) { object_[name] = value; }
  void take(std::string_view name, const std::map<std::string, std::string>& value);
  void take(std::string_view name, const std::vector<std::string>& value);
  template <class Number>
    requires std::integral<Number>
  void take(std::string_view name, const Number& value) {
    object_[name] = value;
  }
  template <class Enum>
  void take(std::string_view name, const Enum& value, const Words<Enum>& words) {
    object_[name] = words.text(value);
  }
  template <class Enum>
  void take_required(std::string_view name, const Enum& value, const Words<Enum>& words) {
    take(name, value, words);
  }
  void take_unless_empty(std::string_view name, const auto& value) {
    if (!value.empty()) take(name, value);
  }
  template <class T>
  void take_object(std::string_view name, const T& value) {
    object_[name] = object_of(value);
  }
  template <class T>
  void take_list(std::string_view name, const std::vector<T>& values) {
    boost::json::array list;
    for (const T& value : values) list.push_back(object_of(value));
    object_[name] = std::move(list);
  }
  template <class T>
  void take_optional(std::string_view name, const std::optional<T>& value) {
    if (value) object_[name] = object_of(*value);
  }
  template <class T>
  static boost::json::object object_of(const T& value) {
    JsonWriter writer;
    list_fields(writer, value);
    return std::move(writer.object_);
  }

 private:
  boost::json::object object_{};
};

std::string serialized(const boost::json::object& object);

template <class T>
std::string write_json(const T& value) {
  return serialized(JsonWriter::object_of(value));
}

/// `what` is for errors: "the request". Errors: invalid_argument.
template <class T>
Result<T> read_json(std::string_view text, std::string_view what) {
  DISKFERRY_TRY(const boost::json::object object, parse_json_object(text, what));
  T value;
  JsonReader reader(object, what);
  list_fields(reader, value);
  DISKFERRY_CHECK(reader.finish());
  return value;
}

}  // namespace diskferry
