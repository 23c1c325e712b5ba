// What may be written into a job: the checks in front of the database. Texts come from operators and peers.
#include "diskferry/image_uri.hpp"
#include "gateway/jobs/job.hpp"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

namespace diskferry {
namespace {
namespace json = boost::json;

Error bad(std::string_view what, std::string why) {
  return fail(ErrorKind::invalid_argument, "note job", std::string(what)).why(std::move(why));
}

Result<void> check_text(std::string_view what, std::string_view text, std::size_t bytes_max) {
  if (text.size() > bytes_max)
    return unexpected(fail(ErrorKind::too_large, "note job", std::string(what))
                          .why(fmt::format("{} bytes, of at most {}", text.size(), bytes_max)));
  if (!is_utf8(text)) return unexpected(bad(what, "not UTF-8"));
  return {};
}

Result<void> check_name(std::string_view what, std::string_view text) {
  DISKFERRY_CHECK(check_text(what, text, JobLimits::name_bytes_max));
  // A text ends at a zero byte for the database's own functions.
  if (text.find('\0') != std::string_view::npos) return unexpected(bad(what, "holds a zero byte"));
  return {};
}

Result<json::value> parse(std::string_view what, std::string_view text, std::size_t bytes_max) {
  DISKFERRY_CHECK(check_text(what, text, bytes_max));
  boost::system::error_code problem;
  json::value value = json::parse(json::string_view(text.data(), text.size()), problem);
  if (problem) return unexpected(bad(what, "not JSON: " + problem.message()));
  return value;
}

Result<void> check_json(std::string_view what, std::string_view text) {
  DISKFERRY_CHECK(parse(what, text, JobLimits::text_bytes_max));
  return {};
}

bool uri_has_secret(std::string_view text) {
  if (text.find("://") == std::string_view::npos) return false;
  const auto uri = ImageUri::parse(text);
  // Whoever prints the URI would have to hide something.
  return uri && !uri->is_file() && uri->to_string() != uri->to_uri_with_secrets();
}

/// The name of the field with a secret in it; empty where there is none. Depth is bounded by the parser.
std::string find_secret(const json::value& value, std::string_view name) {
  if (const auto* text = value.if_string()) {
    const bool is_secret = is_secret_key(name) && !text->empty();
    return is_secret || uri_has_secret(std::string_view(text->data(), text->size())) ? std::string(name)
                                                                                     : std::string{};
  }
  if (const auto* fields = value.if_object()) {
    for (const auto& field : *fields) {
      const auto key = field.key();
      if (auto found = find_secret(field.value(), std::string_view(key.data(), key.size())); !found.empty())
        return found;
    }
  }
  if (const auto* items = value.if_array()) {
    for (const auto& item : *items) {
      if (auto found = find_secret(item, name); !found.empty()) return found;
    }
  }
  return {};
}

}  // namespace

Result<void> check(const NewJob& job) {
  DISKFERRY_CHECK(check_name("id", job.id));
  DISKFERRY_CHECK(check_name("kind", job.kind));
  DISKFERRY_CHECK(check_name("subject", job.subject));
  DISKFERRY_CHECK(check_name("phase", job.phase));
  if (job.kind.empty()) return unexpected(bad("kind", "empty"));
  DISKFERRY_TRY(const json::value request, parse("request", job.request, JobLimits::text_bytes_max));
  if (const std::string name = find_secret(request, "request"); !name.empty())
    return unexpected(
        bad("request", fmt::format("'{}' holds a secret, and jobs are kept on disk", printable(name)))
            .remedy("put it into a file that only the gateway can read, and name the file"));
  return {};
}

Result<void> check(const JobChanges& changes) {
  if (changes.phase) DISKFERRY_CHECK(check_name("phase", *changes.phase));
  if (changes.state) DISKFERRY_CHECK(check_json("state", *changes.state));
  if (changes.report) DISKFERRY_CHECK(check_json("report", *changes.report));
  if (changes.error) DISKFERRY_CHECK(check_text("error", *changes.error, JobLimits::text_bytes_max));
  if (changes.event) DISKFERRY_CHECK(check(*changes.event));
  return {};
}

Result<void> check(const NewJobEvent& event) {
  DISKFERRY_CHECK(check_name("event kind", event.kind));
  DISKFERRY_CHECK(parse("event", event.text, JobLimits::event_bytes_max));
  return {};
}

}  // namespace diskferry
