// How one host sees a storage that another host may have, too, and the question a gateway asks for that.
// Values, and the looking itself; shared_proof.hpp compares two views. The one thing that is written is a
// small file beside the storage, which the asker removes again.
#pragma once

#include "diskferry/driver.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

struct StorageQuestion {
  enum class Act : std::uint8_t {
    look,    ///< say how the storage is seen
    write,   ///< the same, with the marker written first
    remove,  ///< take the marker away again
  };
  Act act = Act::look;
  std::string uri{};              ///< a path or URI, as the host that is asked names it
  std::string marker{};           ///< the name of a file beside it; empty: none. See marker_name().
  std::string text{};             ///< what stands in the marker; for write and remove
  std::uint64_t sample_seed = 0;  ///< which blocks of a network disk are read
};
std::string to_json(const StorageQuestion& question);
Result<StorageQuestion> parse_storage_question(std::string_view json);

struct StorageView {
  bool exists = false;
  std::uint64_t size_bytes = 0;
  std::uint64_t inode = 0;  ///< of a file
  bool is_block_device = false;
  std::string marker_text{};      ///< what the marker says; empty: it is not there
  bool is_marker_beside = false;  ///< and it is on the same file system as the file
  /// The boot id of the kernel, and the file system where that is one which a single kernel may mount.
  std::string kernel{};
  std::string file_system{};
  std::string device_name{};             ///< of a block device, world-wide; empty: it has none
  std::vector<std::string> addresses{};  ///< of a network disk's server
  std::string samples{};                 ///< a hash of the blocks that were read
  bool is_reached = false;  ///< a network disk's server answered, if only that there is no such disk
  std::string problem{};    ///< why it could not be looked at, in words
};
std::string to_json(const StorageView& view);
Result<StorageView> parse_storage_view(std::string_view json);

/// A name that no other file has. `random`: hexadecimal digits.
std::string marker_name(std::string_view random);

/// Answers for this host. What the storage refuses is said in the view.
/// Errors: invalid_argument (a marker that is none of ours, or a text that is not hexadecimal).
Task<Result<StorageView>> view_storage(DriverContext& context, StorageQuestion question);

}  // namespace diskferry
