// What each kind of error is as an HTTP status. The one table; clients of ours branch on the kind in the body
// and never on this.
#pragma once

#include "diskferry/error_kinds.hpp"

#include <array>

namespace diskferry::control {

struct StatusRow {
  ErrorKind kind;
  unsigned status;
};
inline constexpr std::array<StatusRow, error_kind_count> statuses{{
    {ErrorKind::cancelled, 503},
    {ErrorKind::timed_out, 504},
    {ErrorKind::invalid_argument, 400},
    {ErrorKind::not_found, 404},
    {ErrorKind::already_exists, 409},
    {ErrorKind::permission, 403},
    {ErrorKind::in_use, 409},
    {ErrorKind::read_only, 409},
    {ErrorKind::out_of_range, 400},
    {ErrorKind::no_space, 507},
    {ErrorKind::unsupported, 501},
    {ErrorKind::corrupt, 422},
    {ErrorKind::too_large, 413},
    {ErrorKind::mismatch, 409},
    {ErrorKind::protocol, 502},
    {ErrorKind::io, 500},
    {ErrorKind::gone, 502},
    {ErrorKind::internal, 500},
}};

constexpr unsigned status_of(ErrorKind kind) noexcept {
  return statuses[static_cast<std::size_t>(kind)].status;
}

}  // namespace diskferry::control
