// The formats that are read through QEMU. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace diskferry::foreign {

/// By the names of QEMU's drivers.
inline constexpr std::array<std::string_view, 10> formats{"vmdk",      "vhdx", "vpc", "vdi",   "qed",
                                                          "parallels", "qcow", "dmg", "bochs", "cloop"};

inline bool reads_format(std::string_view format) noexcept {
  return std::ranges::find(formats, format) != formats.end();
}

}  // namespace diskferry::foreign
