// The API's values as JSON texts and back. Field names are part of the interface and never change their
// meaning: lower case with hyphens, bytes and milliseconds as integers.
#pragma once

#include "gateway/control/api.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry::control {

/// What a document may hold besides the fields that are known.
enum class Unknown : std::uint8_t {
  refused,  ///< of a request: a misspelt field must not pass in silence
  ignored   ///< of an answer: a newer gateway may say more
};

std::string to_json(const GatewayInfo& value);
std::string to_json(const ExportRequest& value);
std::string to_json(const ExportDescription& value);
std::string to_json(const std::vector<ExportDescription>& value);  ///< {"exports": [...]}
std::string to_json(const JobRequest& value);
std::string to_json(const JobDescription& value);
std::string to_json(const std::vector<JobDescription>& value);  ///< {"jobs": [...]}
std::string to_json(const JobSettings& value);
std::string to_json(const JobEvent& value);
/// {"error": {"kind", "message", ...}}
std::string to_json(const Error& error);

/// Reads one of the values above. `depth_max`: how deep it may be nested. Errors: invalid_argument (no JSON,
/// a field that is missing, unknown or of another kind), too_large (nested too deep).
template <class T>
Result<T> from_json(std::string_view text, Unknown unknown, std::size_t depth_max);

/// The error that a gateway answered with: its kind, texts and remedy. `status` is used where the text is
/// not one of ours.
Error error_from_json(std::string_view text, unsigned status);

// The words of the API.
std::string_view to_string(JobAction action) noexcept;

}  // namespace diskferry::control
