// What the driver is called, with and without the library.
#pragma once

#include <array>
#include <string_view>

namespace diskferry::gluster {
inline constexpr std::array<std::string_view, 2> aliases{"gluster+tcp", "gluster+unix"};
inline constexpr std::string_view summary = "files on a GlusterFS volume: gluster://host/volume/disk.raw";
}  // namespace diskferry::gluster
