// What QEMU is told to open, as the text of `--image-opts`. Pure. Names are hostile: every value goes through
// quoted(), so that a name can end no option and begin none, and every node says its driver, so that QEMU
// guesses nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace diskferry::foreign {

/// A comma ends a value in QEMU's options, and two of them are one comma.
std::string quoted(std::string_view value);

/// A node under the format: where the bytes are. The first is "driver".
using NodeOptions = std::vector<std::pair<std::string, std::string>>;

NodeOptions file_node(const std::string& path, bool is_block_device);
/// The storage that another QEMU serves at the socket with this number in the child.
NodeOptions nbd_node(int socket_fd);

struct FormatNode {
  std::string format;
  bool force_share = false;  ///< read what somebody else has locked
};
/// "driver=vmdk,read-only=on,...,file.driver=file,file.filename=/disk.vmdk"
std::string image_options(const FormatNode& format, const NodeOptions& file);

}  // namespace diskferry::foreign
