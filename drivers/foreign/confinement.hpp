// What a child that parses hostile bytes may do: the files it may read, the sockets it may make, whose rights
// it has, how much memory it may take. docs/decisions/0010-foreign-formats.md says why it is done in this
// way.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace diskferry::foreign {

enum class Sockets : std::uint8_t {
  none,              ///< only those that are handed over
  internet,          ///< TCP and UDP, version 4 and 6
  internet_and_unix  ///< and those of this host: an SSH agent
};

enum class Rights : std::uint8_t {
  reader,    ///< where we are root: a user of its own that may read every file the rules below let it see;
             ///< where root may do less (containers), as child_rights() says
  stranger,  ///< where we are root: a user of its own and nothing more
  own        ///< our user, without root's capabilities
};

struct Confinement {
  std::vector<std::string> files = {};    ///< may be read
  std::vector<std::string> folders = {};  ///< every file below may be read
  Sockets sockets = Sockets::none;
  std::vector<std::uint16_t> ports = {};  ///< of other hosts, by TCP; where the kernel can tell (6.7)
  Rights rights = Rights::stranger;
  /// The certificates of the authorities to believe instead of the system's; empty: the system's.
  std::string authorities = {};
};

/// What becomes of them where our effective capabilities are `capabilities` (bit by bit, capabilities(7)).
struct ChildRights {
  bool changes_user = false;  ///< else it stays our user
  bool can_read_all = false;  ///< it keeps CAP_DAC_READ_SEARCH; of all other capabilities it has none
};
ChildRights child_rights(Rights wanted, std::uint64_t capabilities) noexcept;

/// Memory of its own (RLIMIT_DATA). QEMU itself takes 30 MiB; the tables of a 64 TiB VHDX 512 MiB.
inline constexpr std::uint64_t memory_bytes_max = std::uint64_t{2} << 30;
/// A VMDK of 2 TiB in files of 2 GiB has 1024 extents.
inline constexpr std::uint64_t descriptors_max = 4096;

}  // namespace diskferry::foreign
