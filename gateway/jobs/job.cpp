// Names of jobs and of their states.
#include "gateway/jobs/job.hpp"

#include <algorithm>
#include <array>
#include <random>

namespace diskferry {
namespace {

constexpr std::array<std::string_view, 7> status_names{"queued", "running",   "paused",     "done",
                                                       "failed", "cancelled", "rolled_back"};

/// Crockford's base 32: in the order of ASCII, and without letters that are taken for digits.
constexpr std::string_view digits = "0123456789abcdefghjkmnpqrstvwxyz";

std::string in_base_32(std::uint64_t value, std::size_t places) {
  std::string text(places, digits.front());
  for (std::size_t at = places; at > 0; --at, value /= digits.size())
    text[at - 1] = digits[value % digits.size()];
  return text;
}

}  // namespace

std::string_view to_string(JobStatus status) noexcept {
  return status_names[static_cast<std::size_t>(status)];
}

std::optional<JobStatus> parse_job_status(std::string_view name) noexcept {
  const auto found = std::ranges::find(status_names, name);
  if (found == status_names.end()) return std::nullopt;
  return static_cast<JobStatus>(found - status_names.begin());
}

bool is_final(JobStatus status) noexcept {
  return status >= JobStatus::done;
}

std::string new_job_id(std::string_view kind, std::int64_t now_ms) {
  constexpr std::int64_t epoch_ms = 1'704'067'200'000;  // 2024-01-01
  constexpr std::int64_t minute_ms = 60'000;
  constexpr std::size_t minute_places = 5;  // until 2087
  constexpr std::size_t random_places = 4;  // a million in each minute; who guesses still has to be let in
  std::random_device random;
  const std::int64_t minutes = std::max<std::int64_t>(now_ms - epoch_ms, 0) / minute_ms;
  const char first = kind.empty() || kind.front() < 'a' || kind.front() > 'z' ? 'j' : kind.front();
  return std::string(1, first) + "-" + in_base_32(static_cast<std::uint64_t>(minutes), minute_places) +
         in_base_32(random(), random_places);
}

}  // namespace diskferry
