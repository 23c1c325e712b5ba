// What a copy says of itself when it has ended, for people and as JSON. Field names of the JSON are part of
// the interface.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

namespace diskferry {

/// How a copy is verified. Each level proves what docs/decisions/0005-verification.md says.
enum class VerifyLevel : std::uint8_t {
  none,     ///< only the first and the last MiB, as always
  sample,   ///< of sixteen requests one is read back at once
  cache,    ///< what was written is read back at once, from wherever the target serves it
  storage,  ///< it is read back after a flush, past this machine's page cache
};
std::string_view to_string(VerifyLevel level) noexcept;

/// Why a copy did not come to its end.
struct CopyFailure {
  ErrorKind kind = ErrorKind::internal;
  std::string message;
  bool has_begun = false;        ///< something was copied: it is more than a refusal
  bool can_resume = false;       ///< the ledger is kept
  std::uint64_t kept_bytes = 0;  ///< durable, and not copied again with --resume
};

struct CopyReport {
  std::string source;  ///< names without secrets, and otherwise as given: not to be shown as they are
  std::string target;
  std::string source_format;
  std::string target_format;
  std::uint64_t target_size_bytes = 0;  ///< of the disk that the target is; 0: it was not opened
  std::uint64_t size_bytes = 0;         ///< of the disk

  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t zeroed_bytes = 0;
  std::uint64_t skipped_bytes = 0;
  bool finds_holes_by_reading = false;  ///< the source's storage cannot tell them
  std::uint64_t resumed_bytes = 0;      ///< done by the interrupted copy before this one
  std::optional<std::uint64_t> source_allocated_bytes;
  std::optional<std::uint64_t> target_allocated_bytes;

  VerifyLevel verify = VerifyLevel::cache;
  std::uint64_t verified_bytes = 0;

  double plan_s = 0;    ///< opening, checks, creation of the target
  double copy_s = 0;    ///< with what goes on beside it: flushing, verifying, recording
  double flush_s = 0;   ///< waiting for the last flush
  double verify_s = 0;  ///< what verification took after the copy
  double total_s = 0;
  double background_flush_s = 0;   ///< inside copy_s, beside the copying
  double background_verify_s = 0;  ///< inside copy_s; all tasks together
  std::uint64_t checkpoints = 0;
  std::uint64_t request_bytes = 0;
  unsigned requests = 0;

  std::uint64_t retries = 0;  ///< requests sent again: a connection was lost, or they failed for a while

  std::optional<CopyFailure> failure;  ///< none: all of it was copied
  /// Layers that were changed by somebody while they were copied: the copy is worth nothing.
  std::string changed_layers;
  std::vector<std::string> warnings;
  bool is_good() const noexcept { return changed_layers.empty() && !failure; }
};

/// A few lines for people, each ended by a newline.
std::string to_text(const CopyReport& report);
boost::json::value to_json(const CopyReport& report);

}  // namespace diskferry
