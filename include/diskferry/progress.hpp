// What a long operation tells while it runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry {

/// A moment of a long operation. Bytes count guest-visible work, not bytes on a wire.
struct ProgressUpdate {
  std::string_view subject;  ///< the disk
  std::string_view phase;    ///< "plan", "copy", "flush", "verify", ...
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;  ///< 0: not known yet
};

/// Where progress goes. update() is called often (per request) and from several threads; it must be cheap and
/// decide itself what to show. Implementations: gateway/cli (bar, JSON lines).
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void update(const ProgressUpdate& now) = 0;
};

}  // namespace diskferry
