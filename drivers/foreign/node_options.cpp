#include "drivers/foreign/node_options.hpp"

#include <fmt/format.h>

namespace diskferry::foreign {

std::string quoted(std::string_view value) {
  std::string text;
  text.reserve(value.size());
  for (const char c : value) text.append(c == ',' ? 2 : 1, c);
  return text;
}

NodeOptions file_node(const std::string& path, bool is_block_device) {
  return {{"driver", is_block_device ? "host_device" : "file"}, {"filename", path}};
}

NodeOptions nbd_node(int socket_fd) {
  return {{"driver", "nbd"}, {"server.type", "fd"}, {"server.str", fmt::format("{}", socket_fd)}};
}

std::string image_options(const FormatNode& format, const NodeOptions& file) {
  std::string text = fmt::format("driver={},read-only=on", quoted(format.format));
  if (format.force_share) text += ",force-share=on";
  for (const auto& [name, value] : file) text += fmt::format(",file.{}={}", name, quoted(value));
  return text;
}

}  // namespace diskferry::foreign
