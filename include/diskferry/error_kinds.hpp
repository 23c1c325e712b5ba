// What each kind of error means outside the program: on the NBD wire, as an exit code, and for a retry. The
// one table; tests walk it row by row.
#pragma once

#include "diskferry/error.hpp"

#include <array>

namespace diskferry {

/// The only error numbers that may go on the wire (NBD protocol, "Error values").
enum class NbdErrno : std::uint32_t {
  none = 0,
  perm = 1,
  io = 5,
  nomem = 12,
  inval = 22,
  nospc = 28,
  overflow = 75,
  notsup = 95,
  shutdown = 108,
};

/// Exit codes of the command line (docs/man/diskferry.1.md, "EXIT STATUS").
enum class ExitCode : int { done = 0, failed = 1, usage = 2, refused = 3, different = 4, cancelled = 5 };

struct ErrorKindRow {
  ErrorKind kind;
  std::string_view name;
  std::string_view text;  ///< for people, when there is no better cause
  NbdErrno nbd;           ///< for a request that failed in this way
  ExitCode exit;          ///< for a command that ended in this way
  bool may_retry;         ///< the same request may succeed later without anybody doing anything
};

inline constexpr std::array<ErrorKindRow, error_kind_count> error_kinds{{
    {ErrorKind::cancelled, "cancelled", "cancelled", NbdErrno::shutdown, ExitCode::cancelled, false},
    {ErrorKind::timed_out, "timed_out", "timed out", NbdErrno::io, ExitCode::failed, true},
    {ErrorKind::invalid_argument, "invalid_argument", "invalid argument", NbdErrno::inval, ExitCode::usage,
     false},
    {ErrorKind::not_found, "not_found", "not found", NbdErrno::io, ExitCode::refused, false},
    {ErrorKind::already_exists, "already_exists", "already exists", NbdErrno::io, ExitCode::refused, false},
    {ErrorKind::permission, "permission", "permission denied", NbdErrno::perm, ExitCode::refused, false},
    {ErrorKind::in_use, "in_use", "in use", NbdErrno::io, ExitCode::refused, false},
    {ErrorKind::read_only, "read_only", "read-only", NbdErrno::perm, ExitCode::refused, false},
    {ErrorKind::out_of_range, "out_of_range", "beyond the end of the device", NbdErrno::inval,
     ExitCode::failed, false},
    {ErrorKind::no_space, "no_space", "no space left", NbdErrno::nospc, ExitCode::failed, false},
    {ErrorKind::unsupported, "unsupported", "not supported", NbdErrno::notsup, ExitCode::refused, false},
    {ErrorKind::corrupt, "corrupt", "corrupt", NbdErrno::io, ExitCode::refused, false},
    {ErrorKind::too_large, "too_large", "over the limit", NbdErrno::inval, ExitCode::refused, false},
    {ErrorKind::mismatch, "mismatch", "different", NbdErrno::io, ExitCode::different, false},
    {ErrorKind::protocol, "protocol", "protocol error", NbdErrno::io, ExitCode::failed, false},
    {ErrorKind::io, "io", "input/output error", NbdErrno::io, ExitCode::failed, true},
    {ErrorKind::gone, "gone", "connection lost", NbdErrno::io, ExitCode::failed, true},
    {ErrorKind::internal, "internal", "internal error", NbdErrno::io, ExitCode::failed, false},
}};

constexpr const ErrorKindRow& row_of(ErrorKind kind) noexcept {
  return error_kinds[static_cast<std::size_t>(kind)];
}

}  // namespace diskferry
