// What a server's refusal means to the caller. Pure. libnfs's own mapping calls every failed read and write a
// bad address, and a full quota a bad range; the numbers are those of RFC 1813, 2.6.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry::nfs {

/// The server asks to come again later; and the protocol has no other word for its grace period.
bool is_later(int status) noexcept;
/// `status` is an nfsstat3 that is not NFS3_OK; one that is later, where it was said for too long.
Error status_error(int status, std::string operation, const std::string& name);
/// What NFSv4 says of a read that failed.
enum class Verdict : std::uint8_t {
  refused,
  later,  ///< the server asks to come again, or is in its grace period
  lost,   ///< the connection, or what the server knew of us: it takes a new session
};
/// `error_number`, `said`: libnfs's number, and its text, which has the protocol's name of the error in it.
Verdict judge_v4(int error_number, std::string_view said) noexcept;
/// Of the functions of libnfs, which give error numbers. `said`: its text.
Error library_error(int error_number, std::string operation, const std::string& name, std::string said);

}  // namespace diskferry::nfs
