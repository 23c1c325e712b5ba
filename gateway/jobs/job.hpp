// What a job is to the gateway's memory: values, without behaviour. gateway/move decides what phases there
// are and how one leads to the next; the store keeps them, and whoever shows jobs reads them. Texts that are
// JSON are opaque here, and no text ever holds a secret: a request names the file a secret is in.
#pragma once

#include "diskferry/error.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

enum class JobStatus : std::uint8_t { queued, running, paused, done, failed, cancelled, rolled_back };

/// The stable name, as in the database and in JSON ("rolled_back").
std::string_view to_string(JobStatus status) noexcept;
std::optional<JobStatus> parse_job_status(std::string_view name) noexcept;
/// True when the job will not do anything any more.
bool is_final(JobStatus status) noexcept;

/// Limits of what a job may say. Beyond them the store answers too_large and changes nothing.
struct JobLimits {
  static constexpr std::size_t text_bytes_max = std::size_t{1} << 20;    ///< request, state, error and report
  static constexpr std::size_t event_bytes_max = std::size_t{64} << 10;  ///< the text of one event
  static constexpr std::size_t name_bytes_max = 1024;  ///< id, kind, subject, phase, controller
  /// A job that speaks more than that loses its oldest events; a move of a week has some hundreds.
  static constexpr std::uint64_t events_per_job_max = 10'000;
  static constexpr std::size_t list_max = 1'000;  ///< jobs or events in one answer
  /// Texts in one answer; a list of jobs that would hold more is refused, for the caller to ask for fewer.
  static constexpr std::size_t list_bytes_max = std::size_t{64} << 20;
};

/// Times are milliseconds since 1970, UTC.
struct JobRecord {
  std::string id{};       ///< short, in the order of creation when sorted, not to be guessed: "m-1b3f97k3q"
  std::string kind{};     ///< "migrate"
  std::string subject{};  ///< what it is about: the domain
  std::string request{};  ///< JSON: what was asked for
  std::string phase{};
  std::string state{};  ///< JSON: what the controller needs to go on after a crash
  JobStatus status = JobStatus::queued;
  std::string error{};   ///< why it failed, for people; empty where it did not
  std::string report{};  ///< JSON, once there is one; else empty
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
  /// Grows with every take-over by another controller. Whoever acts for the job names the generation it was
  /// given; one that is late is refused.
  std::uint64_t generation = 0;
  std::string controller{};         ///< who acts for the job, or did last; empty before the first
  std::int64_t lease_until_ms = 0;  ///< until then nobody else may take over
};

struct NewJob {
  std::string kind{};
  std::string subject{};
  std::string request = "{}";
  std::string phase{};
  std::string id{};  ///< empty: a new one. Given on the host that helps with another one's job
  /// Refuse while another exclusive job about the same subject is active.
  bool is_exclusive = false;
};

/// A kind of event that tells how far a job is. The next one says it all again, so that one may be lost, and
/// it need not be stored.
inline constexpr std::string_view progress_event = "progress";
/// The job is in another phase.
inline constexpr std::string_view phase_event = "phase";
/// The job has ended; there is no event after it.
inline constexpr std::string_view end_event = "end";

/// Where an export's bytes are since its storage was replaced: what counts, whatever a configuration says.
struct EndpointRecord {
  std::string name{};
  std::string uri{};
  std::string format{};
  std::uint64_t size_bytes = 0;  ///< of the disk, which its storage may be larger than
  std::string configured{};  ///< the image that the configuration named then; empty: a job made the export
  /// Grows with every change of places.
  std::uint64_t generation = 0;
  bool operator==(const EndpointRecord&) const = default;
};

struct NewJobEvent {
  std::string kind{};
  std::string text = "{}";  ///< JSON
};

struct JobEvent {
  std::string job{};
  std::uint64_t sequence = 0;  ///< from 1 without a gap within a job; 0: was not stored
  std::string kind{};
  std::string text{};
  std::int64_t time_ms = 0;
};

/// What is not given stays as it is. All of it is done or nothing.
struct JobChanges {
  std::optional<JobStatus> status{};
  std::optional<std::string> phase{};
  std::optional<std::string> state{};
  std::optional<std::string> error{};
  std::optional<std::string> report{};
  std::optional<NewJobEvent> event{};  ///< noted together with the change
  /// These exports are there from now on; their generations are counted by the store.
  std::vector<EndpointRecord> endpoints{};
  /// Exports of these names are not there any more, of which `endpoints` has none.
  std::vector<std::string> gone_endpoints{};
};

struct JobFilter {
  bool active_only = false;
  std::string subject{};  ///< empty: any
  std::size_t limit = 100;
  std::size_t bytes_max = JobLimits::list_bytes_max;  ///< of texts; the list is refused beyond it
};

/// A name for a job of that kind which nobody has yet, as far as chance goes.
std::string new_job_id(std::string_view kind, std::int64_t now_ms);

/// Whether the texts may be stored: sizes, UTF-8, JSON where it is to be JSON, and no password or key in a
/// request. Errors: too_large, invalid_argument.
Result<void> check(const NewJob& job);
Result<void> check(const JobChanges& changes);
Result<void> check(const NewJobEvent& event);

}  // namespace diskferry
