// Reading a JSON object of ours field by field: each field at most once, of the right kind, and none that
// nobody knows. Used by the texts that are stored with a move and that other gateways send; internal to this
// room.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

namespace diskferry {

/// The object in `text`. Errors: invalid_argument.
Result<boost::json::object> parse_json_object(std::string_view text, std::string_view what);

/// Fields are taken out one by one; the first that is wrong is remembered and finish() tells of it, so that
/// the reading code is a plain list of fields.
class JsonFields {
 public:
  JsonFields(const boost::json::object& object, std::string_view what) : object_(object), what_(what) {}

  void take(std::string_view name, std::string& into);
  void take(std::string_view name, bool& into);
  void take(std::string_view name, std::uint64_t& into);
  void take(std::string_view name, std::int64_t& into);
  void take(std::string_view name, unsigned& into);
  void take(std::string_view name, std::map<std::string, std::string>& into);
  void take(std::string_view name, std::vector<std::string>& into);
  /// Calls read(object) for each element of an array of objects; it returns a Result<void>.
  template <class Read>
  void each(std::string_view name, Read read) {
    const auto* array = array_named(name);
    if (array == nullptr) return;
    for (const auto& element : *array) {
      if (!element.is_object()) return wrong(name, "holds something that is no object");
      if (auto done = read(element.get_object()); !done) return keep(std::move(done).error());
    }
  }
  /// The first thing that was wrong, or a field that nobody took. Errors: invalid_argument.
  Result<void> finish();

 private:
  const boost::json::value* find(std::string_view name);
  const boost::json::array* array_named(std::string_view name);
  void wrong(std::string_view name, std::string_view why);
  void keep(Error error);

  const boost::json::object& object_;
  std::string what_;
  std::set<std::string, std::less<>> taken_{};
  std::optional<Error> error_{};
};

}  // namespace diskferry
