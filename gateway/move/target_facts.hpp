// What a gateway says of itself and of a disk that may come to it. Values only, so that what decides on them
// needs no coroutines.
#pragma once

#include <cstdint>
#include <string>

namespace diskferry {

/// What is there now; for preflight. Nothing was changed to learn it.
struct TargetDiskFacts {
  bool exists = false;
  std::uint64_t size_bytes = 0;             ///< of the disk there
  std::uint64_t space_available_bytes = 0;  ///< for a new one; 0: not known
  std::string problem{};                    ///< why it cannot be used, in words; empty: it can
  std::string identity{};  ///< of the storage, to be compared with the source's: same text, same storage
  /// The smallest request its storage takes; 0: not known. A guest with smaller sectors could not use it.
  std::uint32_t block_bytes = 0;
  bool can_create = false;  ///< of network storage: it is made where it does not exist
};

/// What a gateway says of itself.
struct GatewayFacts {
  std::string name{};
  std::string version{};
  std::string machine_id{};    ///< the host's, to see that it is another one
  std::int64_t time_ms = 0;    ///< its clock, since the epoch
  std::string move_folder{};   ///< where it makes a folder for each move
  std::uint16_t nbd_port = 0;  ///< 0: it offers no disks over TCP
  bool nbd_requires_tls = true;
};

}  // namespace diskferry
