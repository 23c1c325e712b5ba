// The files of the page, which are part of the program: page_files.cpp is made of them by embed.cmake.
#pragma once

#include <array>
#include <string_view>

namespace diskferry::control {

struct PageFile {
  std::string_view name;  ///< in the path; "" is the page itself
  std::string_view content_type;
  std::string_view text;
};
inline constexpr std::size_t page_file_count = 6;
extern const std::array<PageFile, page_file_count> page_files;

}  // namespace diskferry::control
