// A moment that lies ahead, as operators name it.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string_view>

namespace diskferry::cli {

/// Milliseconds since the epoch of `text`:
///     +90s, +30m, +2h, +1d             from now
///     22:30                            when this host's clock shows that next
///     2026-11-28T22:30[:15][Z|+01:00]  RFC 3339; without a zone as this host's clock shows it
/// Errors: invalid_argument, also for a moment that is over, or that lies more than a year ahead.
Result<std::int64_t> parse_time_ahead(std::string_view text, std::int64_t now_ms);

}  // namespace diskferry::cli
