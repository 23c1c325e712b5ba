// What a job tells of itself once a second, and at its end, as lines for people: each disk with its frontier,
// what is copied, dirty and sent again, what guests write and pay, the mode and why, what is left and what
// the pause would be. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

namespace diskferry::cli {

/// Remembers what guests had written the last time, for the rate. Thread: one.
class JobFigures {
 public:
  /// Two lines for each disk of a progress; none where its kind of job tells nothing more than how much is
  /// done. `time_ms`: when it was so; 0: not known.
  std::vector<std::string> lines(const boost::json::object& progress, std::int64_t time_ms);

 private:
  struct Sample {
    std::int64_t time_ms = 0;
    std::uint64_t guest_bytes = 0;
  };
  std::map<std::string, Sample> before_{};
};

/// "writes held: 2.7 ms (...)" and what else a report of a replacement has to say; nothing where it is none.
std::vector<std::string> report_lines(const boost::json::object& report);

/// Of a JSON text; empty where it is no object.
boost::json::object object_of(const std::string& text);
// Fields of such a document; 0, false and empty where they are not there or of another kind.
std::uint64_t number_in(const boost::json::object& object, std::string_view name);
/// Of a field in microseconds.
double milliseconds_in(const boost::json::object& object, std::string_view name);
std::string text_in(const boost::json::object& object, std::string_view name);
bool flag_in(const boost::json::object& object, std::string_view name);
/// "TITLE: TEXT" of each text of a list.
void add_texts(std::vector<std::string>& into, const boost::json::object& report, std::string_view name,
               std::string_view title);
/// Those of a list that are objects.
std::vector<boost::json::object> objects_in(const boost::json::object& object, std::string_view name);

}  // namespace diskferry::cli
