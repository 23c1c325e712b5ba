// What an error number of librados and librbd means to the caller. Pure. They give negative errno values
// whose meaning depends on the call: "no such file" from connecting is a key that was not found.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::rbd {

/// `result` is what a function of the library returned, negative.
Error status_error(std::int64_t result, std::string operation, const std::string& name);
/// Of connecting, where the user and its key are what may be wrong.
Error connect_error(std::int64_t result, const std::string& name, const std::string& user);
/// After this result nothing on this connection will succeed: it is fenced, or the cluster did not answer for
/// as long as we wait, or another client has taken the lock.
bool is_final(std::int64_t result) noexcept;

}  // namespace diskferry::rbd
