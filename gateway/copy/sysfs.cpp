// See the header.
#include "gateway/copy/sysfs.hpp"

#include <fstream>

namespace diskferry {
namespace {
constexpr std::size_t line_bytes_max = 256;
}  // namespace

std::string sysfs_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\0')) line.pop_back();
  return line.size() > line_bytes_max ? std::string() : line;
}

}  // namespace diskferry
