// One cold copy from beginning to end: open both sides, refuse what must not be, create the target, plan,
// copy, flush, verify, report; or leave a target and a ledger from which to go on. The command line calls
// this.
#pragma once

#include "diskferry/progress.hpp"
#include "drivers/filters/fault.hpp"
#include "drivers/image/image.hpp"
#include "gateway/copy/plan.hpp"
#include "gateway/copy/report.hpp"

namespace diskferry {

struct CopyRequest {
  ImageUri source;
  ImageOpenOptions source_options;
  ImageUri target;
  std::string target_format;  ///< empty: by the target's name, or raw

  enum class Existing : std::uint8_t {
    refuse,     ///< create what is not there; what is there is refused
    overwrite,  ///< what is there is emptied and used
    use         ///< never create; what is there is used as it is
  } existing = Existing::refuse;
  bool resume = false;

  std::uint64_t cluster_bytes = 0;
  Compression compression = Compression::none;
  ImageCreateOptions::Preallocate preallocate = ImageCreateOptions::Preallocate::off;
  bool top_only = false;
  std::string backing_name;  ///< of the new target
  std::string backing_format;

  std::optional<VerifyLevel> verify{};  ///< none: by what the target's storage is, usual_verification()
  unsigned target_connections = 0;
  unsigned requests = 0;               ///< 0: by what the devices say
  std::uint64_t request_bytes = 0;     ///< 0: by what the storages are
  std::uint64_t bytes_per_s = 0;       ///< 0: no limit
  std::uint64_t checkpoint_bytes = 0;  ///< 0: CheckpointOptions' default

  /// For rehearsals: what goes wrong on each side (parse_fault_plan()); no rules: nothing.
  FaultPlan source_faults = {};
  FaultPlan target_faults = {};
};

/// Errors: not_found, already_exists, in_use (also: both sides are one storage), too_large (target too
/// small), invalid_argument and all others of opening before anything was changed; afterwards those of the
/// devices, mismatch (what was written does not come back), cancelled; their message says what is copied and
/// kept. A source that changed meanwhile is no Error but a report that is not is_good(): everything was
/// copied. Cancel: finishes a checkpoint first, within some seconds. `failed`, where given, becomes the
/// report of a copy that fails; it lives until the task ends.
Task<Result<CopyReport>> copy_image(DriverContext& context, CopyRequest request, ProgressSink* progress,
                                    CopyReport* failed = nullptr);

/// What copy_image() would do. Changes nothing.
struct CopyForecast {
  std::string source_format;
  std::string target_format;
  std::uint64_t size_bytes = 0;
  PlanTotals totals;
  bool target_exists = false;
  std::optional<std::uint64_t>
      target_bytes;  ///< of the disk there, when it is there and will be used as it is
  std::optional<std::uint64_t> space_available_bytes;  ///< of a file system the target will be created in
  std::optional<double> read_bytes_per_s;              ///< tried on a few MiB of the source
  std::vector<std::string> warnings;                   ///< what an operator should know before
  std::vector<std::string> blockers;  ///< each a reason why copy_image() would refuse or fail
};
Task<Result<CopyForecast>> forecast_copy(DriverContext& context, CopyRequest request);

}  // namespace diskferry
