// Users and groups by name. Blocking calls, at start only.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>

namespace diskferry::daemon {

struct UserIds {
  std::int64_t uid = -1;  ///< -1: none was named
  std::int64_t gid = -1;
};
/// `user` may be empty; an empty `group` is the user's own. Errors: not_found.
Result<UserIds> find_user(const std::string& user, const std::string& group);

}  // namespace diskferry::daemon
