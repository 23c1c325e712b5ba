#include "drivers/gluster/status.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>

namespace diskferry::gluster {
namespace {

constexpr std::array lost_numbers{ENOTCONN,     EBADFD, EBADF,     ECONNRESET, ECONNABORTED,
                                  ECONNREFUSED, EPIPE,  ESHUTDOWN, ETIMEDOUT,  EHOSTUNREACH,
                                  EHOSTDOWN,    ESTALE, ENETDOWN,  ENETUNREACH};

struct Row {
  int number;
  ErrorKind kind;
  std::string_view text;
  std::string_view remedy = {};
};
constexpr std::string_view owner_remedy =
    "check the owner and the mode of the file and its folder, and server.root-squash of the volume";
constexpr std::string_view space_remedy = "free space there, then run again with --resume";
constexpr std::array rows{
    Row{EPERM, ErrorKind::permission, "the volume refuses it", owner_remedy},
    Row{EACCES, ErrorKind::permission, "the volume refuses it", owner_remedy},
    Row{ENOENT, ErrorKind::not_found, "there is no such file"},
    Row{ENOTDIR, ErrorKind::not_found, "a part of the path is no folder"},
    Row{EEXIST, ErrorKind::already_exists, "the file exists"},
    Row{EISDIR, ErrorKind::invalid_argument, "it is a folder"},
    Row{EINVAL, ErrorKind::invalid_argument, "the volume finds the request invalid"},
    Row{ENAMETOOLONG, ErrorKind::too_large, "the name is too long for the volume"},
    Row{EROFS, ErrorKind::read_only, "the volume is read-only",
        "check features.read-only and features.worm of the volume"},
    Row{ENOSPC, ErrorKind::no_space, "the volume is full", space_remedy},
    Row{EDQUOT, ErrorKind::no_space, "the quota on the volume is used up", space_remedy},
    Row{EFBIG, ErrorKind::no_space, "the file is larger than the bricks' file systems allow"},
    Row{ESTALE, ErrorKind::gone, "the file was removed or replaced on the volume (stale handle)",
        "check which file is there, then start again"},
    Row{ENOMEM, ErrorKind::too_large, "out of memory"},
    Row{EAGAIN, ErrorKind::in_use, "the file is locked"},
    Row{EBUSY, ErrorKind::in_use, "the file is in use"},
    Row{EIO, ErrorKind::io, "a brick has an input/output error"},
};

struct LogRow {
  std::string_view mark;
  ErrorKind kind;
  std::string_view why;
  std::string_view remedy;
  bool is_final = false;
};
constexpr std::array log_rows{
    LogRow{"remote-error=Authentication failed", ErrorKind::permission, "the volume refuses this host",
           "check auth.allow and auth.reject of the volume", true},
    LogRow{"DNS resolution failed", ErrorKind::gone, "the host has no address",
           "check the name and the resolver"},
    LogRow{"SSL connect error", ErrorKind::permission, "the server's TLS is not ours",
           "check the certificates that GlusterFS uses on this host"},
};
constexpr std::string_view reach_remedy =
    "check that the host is right, that glusterd runs there and that the volume is started";

}  // namespace

bool is_lost(int number) noexcept {
  return std::ranges::find(lost_numbers, number) != lost_numbers.end();
}

bool is_unsupported(int number) noexcept {
  return number == EOPNOTSUPP || number == ENOSYS;
}

Error call_error(int number, std::string operation, const std::string& name) {
  for (const Row& row : rows) {
    if (row.number != number) continue;
    Error error =
        fail(row.kind, std::move(operation), name).cause(errno_code(number)).why(std::string(row.text));
    return row.remedy.empty() ? error : std::move(error).remedy(std::string(row.remedy));
  }
  if (is_lost(number))
    return fail(ErrorKind::gone, std::move(operation), name)
        .cause(errno_code(number))
        .why("a brick of the volume cannot be reached")
        .remedy("check the bricks with 'gluster volume status'");
  const ErrorKind kind = is_unsupported(number) ? ErrorKind::unsupported : ErrorKind::io;
  return fail(kind, std::move(operation), name).cause(errno_code(number));
}

std::optional<MountRefusal> refusal_in_log(std::string_view log) {
  for (const LogRow& row : log_rows) {
    if (log.contains(row.mark))
      return MountRefusal{.kind = row.kind,
                          .why = std::string(row.why),
                          .remedy = std::string(row.remedy),
                          .is_final = row.is_final};
  }
  return std::nullopt;
}

Error mount_error(int number, const std::optional<MountRefusal>& refusal, const std::string& name) {
  // That there is no such volume, a server has said: it was not the one that could not be reached.
  if (refusal && number != ENOENT)
    return fail(refusal->kind, "mount", name).why(refusal->why).remedy(refusal->remedy);
  if (number == ENOENT || number == EINVAL)
    return fail(ErrorKind::not_found, "mount", name)
        .why("the server has no such volume, or it is not started")
        .remedy("'gluster volume info' lists the volumes there");
  if (number == EIO)
    return fail(ErrorKind::gone, "mount", name)
        .why("the bricks of the volume cannot be reached")
        .remedy("check them with 'gluster volume status'");
  return fail(ErrorKind::gone, "mount", name)
      .cause(errno_code(number))
      .why("the volume cannot be mounted")
      .remedy(std::string(reach_remedy));
}

}  // namespace diskferry::gluster
