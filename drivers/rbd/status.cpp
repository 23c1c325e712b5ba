#include "drivers/rbd/status.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <cerrno>
#include <fmt/format.h>

namespace diskferry::rbd {
namespace {

struct Row {
  int number;
  ErrorKind kind;
  std::string_view text;
  std::string_view remedy = {};
};
constexpr std::string_view resume_remedy = ", then run again with --resume";
constexpr std::array rows{
    Row{EPERM, ErrorKind::permission, "the cluster does not allow this user to do it",
        "give it 'profile rbd' for the monitors and for this pool, or name another with id="},
    Row{EACCES, ErrorKind::permission, "the cluster does not allow this user to do it",
        "give it 'profile rbd' for the monitors and for this pool, or name another with id="},
    Row{ENOENT, ErrorKind::not_found, "the cluster has no such pool, namespace, image or snapshot"},
    Row{EEXIST, ErrorKind::already_exists, "the image exists"},
    Row{EIO, ErrorKind::io, "the cluster has an input/output error"},
    Row{EINVAL, ErrorKind::invalid_argument, "Ceph finds the request invalid"},
    Row{ENOSPC, ErrorKind::no_space, "the cluster is full", "add storage or free some"},
    Row{EDQUOT, ErrorKind::no_space, "the pool's quota is used up", "raise the quota or free space"},
    Row{ETIMEDOUT, ErrorKind::gone, "the cluster did not answer in time",
        "look at the state of its monitors and OSDs"},
    Row{ENOTCONN, ErrorKind::gone, "the connection to the cluster is lost"},
    // Not gone: whoever opens it again comes as another client, past the fence.
    Row{ESHUTDOWN, ErrorKind::in_use, "the cluster has fenced this client (it is on the blocklist)",
        "find out who fenced it, and whether somebody else writes to the image"},
    Row{EROFS, ErrorKind::in_use, "another client holds the image's exclusive lock, or it is a mirror's copy",
        "end the program that has it open (rbd status, rbd lock ls)"},
    Row{EBUSY, ErrorKind::in_use, "another client has it open",
        "end the program that has it open (rbd status)"},
    Row{ENOTEMPTY, ErrorKind::in_use, "the image has snapshots", "remove them first"},
    Row{ENOSYS, ErrorKind::unsupported, "the image has features that this librbd does not know"},
    Row{EOPNOTSUPP, ErrorKind::unsupported, "the cluster or this librbd does not support it"},
    Row{ENAMETOOLONG, ErrorKind::too_large, "the name is too long for the cluster"},
    Row{EFBIG, ErrorKind::too_large, "it is larger than an image can be"},
    Row{ENOMEM, ErrorKind::too_large, "out of memory"},
};

bool is_about_space(ErrorKind kind) noexcept {
  return kind == ErrorKind::no_space;
}

}  // namespace

Error status_error(std::int64_t result, std::string operation, const std::string& name) {
  const auto number = static_cast<int>(-result);
  for (const Row& row : rows) {
    if (row.number != number) continue;
    Error error = fail(row.kind, std::move(operation), name).why(std::string(row.text));
    if (row.remedy.empty()) return error;
    return std::move(error).remedy(std::string(row.remedy) +
                                   std::string(is_about_space(row.kind) ? resume_remedy : ""));
  }
  return fail(ErrorKind::io, std::move(operation), name).why(fmt::format("librbd gives error {}", number));
}

Error connect_error(std::int64_t result, const std::string& name, const std::string& user) {
  Error error = fail(ErrorKind::permission, "connect", name);
  switch (-result) {
    case ENOENT:
      return std::move(error)
          .why(fmt::format("no key of client.{} was found", printable(user)))
          .remedy("name the file with keyring=, or another user with id=");
    case EPERM:
    case EACCES:
    case EOPNOTSUPP:
      return std::move(error)
          .why(fmt::format("the cluster does not let client.{} in", printable(user)))
          .remedy("compare its key with 'ceph auth get' at the cluster");
    case EINVAL:
      return fail(ErrorKind::invalid_argument, "connect", name)
          .why("the monitors' addresses or the keyring make no sense to Ceph");
    case ETIMEDOUT:
      return fail(ErrorKind::gone, "connect", name)
          .why("no monitor answered in time")
          .remedy("look at the monitors, and at the addresses in the configuration file");
    default:
      return status_error(result, "connect", name);
  }
}

bool is_final(std::int64_t result) noexcept {
  return result == -ETIMEDOUT || result == -ESHUTDOWN || result == -ENOTCONN || result == -EROFS;
}

}  // namespace diskferry::rbd
