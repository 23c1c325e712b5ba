// Results on stdout: JSON documents that people can read too, and aligned name-value lines.
#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/json/value.hpp>

namespace diskferry::cli {

/// Prints the value with two spaces of indentation and a newline at the end. Bytes are integers; field names
/// are part of the interface and never change their meaning.
void print_json(std::ostream& out, const boost::json::value& value);
/// On one line, without a newline.
std::string to_json_line(const boost::json::value& value);

/// "name:   value" lines with the values in one column. Empty values are left out.
class FieldList {
 public:
  void add(std::string_view name, std::string value);
  void print(std::ostream& out, std::string_view indent = {}) const;

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

/// "1.5 GiB (1610612736 bytes)"
std::string bytes_for_people(std::uint64_t bytes);

}  // namespace diskferry::cli
