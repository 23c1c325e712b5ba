// What a server's refusal means to the caller. Pure. libnfs's own mapping calls every failed read and write a
// bad address, and a full quota a bad range; the numbers are those of RFC 1813, 2.6.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::nfs {

/// The server asks to come again later; and the protocol has no other word for its grace period.
bool is_later(int status) noexcept;
/// `status` is an nfsstat3 that is not NFS3_OK and not later.
Error status_error(int status, std::string operation, const std::string& name);
/// Of the functions of libnfs, which give error numbers. `said`: its text.
Error library_error(int error_number, std::string operation, const std::string& name, std::string said);

}  // namespace diskferry::nfs
