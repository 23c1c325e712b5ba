// Block status: what a server says of a range, context by context, checked and put together into extents.
// Pure: fed by the connection, walked by nobody else. What contradicts the protocol is an error, never a
// guess.
#pragma once

#include "diskferry/error.hpp"
#include "diskferry/extent.hpp"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace diskferry::nbd {

inline constexpr std::string_view context_allocation = "base:allocation";
inline constexpr std::string_view context_depth = "qemu:allocation-depth";

/// One answer of the server to one request for block status. Bounded: neighbours that say the same are merged
/// as they come, and what lies behind the first `runs_max` runs is dropped.
class BlockStatus {
 public:
  BlockStatus(Range range, std::size_t runs_max) : range_(range), runs_max_(runs_max) {}

  /// A chunk of this context begins.
  void begin(std::string_view context);
  /// One descriptor of it. Only the last may reach beyond the range (NBD protocol,
  /// NBD_REPLY_TYPE_BLOCK_STATUS).
  void add(std::uint64_t length, std::uint64_t flags);

  /// Extents from the start of the range, whole blocks but at the end of the range; at least one, at most
  /// `runs_max`. A block of which only a part is zero or hole is data. Errors: protocol.
  Result<std::vector<Extent>> extents(std::uint32_t block_bytes, bool depth_expected) const;

 private:
  struct Run {
    std::uint64_t end = 0;  // offset behind it
    std::uint64_t flags = 0;
  };
  struct Context {
    bool is_seen = false;
    bool is_complete = false;  // reaches the end of the range; nothing more may come
    bool is_full = false;      // runs_max is reached; what comes is checked, but not kept
    std::uint64_t at = 0;      // where the next descriptor begins
    std::vector<Run> runs;
  };
  class Cursor;
  const Range range_;
  const std::size_t runs_max_;
  Context allocation_;
  Context depth_;
  Context* current_ = nullptr;
  const char* problem_ = nullptr;
};

}  // namespace diskferry::nbd
