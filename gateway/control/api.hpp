// What a gateway can be asked from outside: exports, jobs, and what gateways ask of each other during a move.
// The daemon implements GatewayApi over its rooms and the control server serves it; ControlClient implements
// the same over a connection, so that a caller does not see whether the gateway is in its own process.
//
// Texts that other rooms own pass through as JSON documents (`..._json`): the request and the state of a job
// mean something to its kind only.
#pragma once

#include "diskferry/clock.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace diskferry::control {

struct GatewayInfo {
  std::string name{};     ///< of the host, for people
  std::string version{};  ///< of the program
  std::string host_id{};  ///< tells hosts apart, also where names are equal; empty: not known
  std::int64_t time_ms =
      0;  ///< since the epoch, when the answer was made: certificates and leases need equal clocks
  std::vector<std::string> nbd_addresses{};  ///< URIs without an export's name
  std::vector<std::string> features{};       ///< names of what a caller may use, such as "exports", "jobs"
};

// Exports.

struct ExportRequest {
  std::string name{};
  std::string image{};        ///< a path or a URI, as on the command line
  std::string format{};       ///< empty: probed where it is read-only, else by the name of the file
  std::string description{};  ///< for clients that list exports
  bool writable = false;
  bool requires_tls = false;
  std::vector<std::string> allow{};  ///< names of clients let in, which then use TLS; empty: everybody
};
struct ExportDescription {
  std::string name{};
  std::string image{};  ///< without secrets
  std::string format{};
  std::string description{};
  bool writable = false;
  bool requires_tls = false;
  std::vector<std::string> allow{};
  std::uint64_t size_bytes = 0;
  std::uint64_t clients = 0;             ///< sessions now
  bool is_configured = false;            ///< from the configuration file: there again after a restart
  std::vector<std::string> addresses{};  ///< as clients write them
  /// Why its storage is not open; empty: it is. It is tried again, and clients are let in once it is there.
  std::string waiting{};
};

// Jobs.

struct JobRequest {
  std::string kind{};               ///< "migrate", "replace", "copy"
  std::string request_json = "{}";  ///< an object; what is in it is the kind's business
  std::uint64_t watch_seconds = 0;  ///< of a plan: watch what is running for so long, to predict; 0: do not
};
struct JobDescription {
  std::string id{};
  std::string kind{};
  std::string subject{};  ///< what is moved: the name of a machine, an image
  std::string phase{};
  std::string status{};  ///< "queued", "running", "paused", "done", "failed", "cancelled", "rolled-back"
  std::string error{};   ///< for people; empty while nothing is wrong
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
  std::string request_json = "{}";
  std::string state_json = "{}";
  std::string report_json = "{}";
  std::string progress_json = "{}";  ///< the last word of a job that runs; "{}" where there is none
};
struct JobFilter {
  bool active_only = false;
  std::uint32_t jobs_max = 1000;  ///< the newest are listed
};
enum class JobAction : std::uint8_t { cancel, pause, resume, commit, fallback };
/// What may be changed while a job runs; what is not given stays.
struct JobSettings {
  std::optional<std::uint64_t> rate_bytes_per_s{};  ///< 0: no limit
  std::optional<std::uint64_t> max_pause_ms{};
  std::optional<std::uint64_t> max_write_latency_ms{};
  std::optional<std::uint64_t> deadline_s{};   ///< from now on; 0: none
  std::optional<std::string> on_read_error{};  ///< "stop", "skip", "abort"
  std::optional<std::uint64_t> window_bytes{};
  std::optional<std::uint32_t> connections{};
};
struct JobEvent {
  std::string job{};
  std::uint64_t sequence = 0;  ///< grows by one with each event of a job
  std::int64_t time_ms = 0;
  std::string kind{};  ///< "phase", "progress", "log", "report", "lost" (events were dropped before this one)
  std::string body_json = "{}";
};
struct EventFilter {
  std::string job{};        ///< empty: all jobs
  std::uint64_t after = 0;  ///< of one job: only events with a higher sequence; of all jobs: not used
};
/// Events as they come. Thread: one call at a time.
class EventSource {
 public:
  virtual ~EventSource() = default;
  struct Batch {
    std::vector<JobEvent> events{};  ///< none: nothing came within the wait
    bool ended = false;              ///< after these there are no more: the job has ended
  };
  /// Waits for at most `wait` for the next events. Errors: cancelled, gone (the gateway).
  virtual Task<Result<Batch>> next(Duration wait) = 0;
};

// What one gateway asks of another during a move.

struct PeerCall {
  std::string verb{};       ///< "facts", "look", "prepare", "finish"
  std::string body_json{};  ///< its meaning, and the answer's, is gateway/move's (target_gateway.hpp)
  std::string caller{};     ///< who asks, as its certificate says; filled in by the server
};

// The calls. Thread: each from any executor thread, many at once. Cancel: gives up waiting; what was begun
// may have been done. Errors: any call may return permission, timed_out, gone (a remote gateway), unsupported
// (it does not do that), internal; further ones are named.

class JobsApi {
 public:
  virtual ~JobsApi() = default;
  virtual Task<Result<std::vector<JobDescription>>> jobs(JobFilter filter) = 0;
  /// Errors: not_found.
  virtual Task<Result<JobDescription>> job(std::string id) = 0;
  /// Records the job and starts it; returns once it is durable. Errors: invalid_argument, in_use (its disk or
  /// machine is part of another job).
  virtual Task<Result<JobDescription>> create_job(JobRequest request) = 0;
  /// What such a job would do and what speaks against it, as a JSON document of its kind. Changes nothing.
  /// Errors: invalid_argument, and those of asking whoever has to be asked first.
  virtual Task<Result<std::string>> plan_job(JobRequest request) = 0;
  /// Returns once the wish is recorded; the job's events tell when it has come true. Errors: not_found,
  /// unsupported (not in this phase).
  virtual Task<Result<JobDescription>> act_on_job(std::string id, JobAction action) = 0;
  virtual Task<Result<JobDescription>> set_job(std::string id, JobSettings settings) = 0;
  /// Errors: not_found, too_large (too many listen).
  virtual Task<Result<std::unique_ptr<EventSource>>> events(EventFilter filter) = 0;
};

class PeerApi {
 public:
  virtual ~PeerApi() = default;
  /// May be repeated. Errors: not_found (no such verb), invalid_argument, and those of making and opening
  /// disks.
  virtual Task<Result<std::string>> peer(PeerCall call) = 0;
};

class GatewayApi : public JobsApi, public PeerApi {
 public:
  virtual Task<Result<GatewayInfo>> info() = 0;
  virtual Task<Result<std::vector<ExportDescription>>> exports() = 0;
  /// Errors: already_exists (the name), and those of opening an image.
  virtual Task<Result<ExportDescription>> add_export(ExportRequest request) = 0;
  /// Lets requests in flight finish, disconnects its clients and closes the image. Errors: not_found,
  /// in_use (a job holds it).
  virtual Task<Result<void>> remove_export(std::string name) = 0;
  /// Figures for Prometheus, in its text format.
  virtual Task<Result<std::string>> metrics() = 0;
};

}  // namespace diskferry::control
