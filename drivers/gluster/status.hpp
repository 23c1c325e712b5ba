// What the library's error numbers mean to the caller, and what its log says of a mount that does not come
// about. Pure.
#pragma once

#include "diskferry/error.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace diskferry::gluster {

/// A brick is away, or this opening of the file is of no use any more: the request may be sent again through
/// another one.
bool is_lost(int number) noexcept;
/// The volume, or a translator of it, has no such request.
bool is_unsupported(int number) noexcept;
Error call_error(int number, std::string operation, const std::string& name);

/// Of a client whose address a volume refuses, glfs_init() never returns, and of all others it says little:
/// the reason is in the log, here what was written of it so far.
struct MountRefusal {
  ErrorKind kind;
  std::string why;
  std::string remedy;
  bool is_final = false;  ///< glfs_init() will not return; the others it may get over, by another server
};
std::optional<MountRefusal> refusal_in_log(std::string_view log);
/// Of glfs_init(). `refusal`: what the log tells.
Error mount_error(int number, const std::optional<MountRefusal>& refusal, const std::string& name);

}  // namespace diskferry::gluster
