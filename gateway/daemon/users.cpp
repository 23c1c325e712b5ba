// getpwnam_r and getgrnam_r with a buffer that is large enough for any sane entry.
#include "gateway/daemon/users.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <grp.h>
#include <pwd.h>

namespace diskferry::daemon {
namespace {
constexpr std::size_t entry_bytes_max = 16384;

Error unknown(std::string_view kind, const std::string& name) {
  return fail(ErrorKind::not_found, "look up the hypervisor's user", printable(name))
      .why("there is no such " + std::string(kind))
      .remedy("correct move.qemu-user and move.qemu-group in the configuration");
}
}  // namespace

Result<UserIds> find_user(const std::string& user, const std::string& group) {
  UserIds ids;
  if (user.empty()) return ids;
  std::array<char, entry_bytes_max> text{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwnam_r(user.c_str(), &entry, text.data(), text.size(), &found) != 0 || found == nullptr)
    return unexpected(unknown("user", user));
  ids = {.uid = entry.pw_uid, .gid = entry.pw_gid};
  if (group.empty()) return ids;
  struct group members{};
  struct group* known = nullptr;
  if (::getgrnam_r(group.c_str(), &members, text.data(), text.size(), &known) != 0 || known == nullptr)
    return unexpected(unknown("group", group));
  ids.gid = members.gr_gid;
  return ids;
}

}  // namespace diskferry::daemon
