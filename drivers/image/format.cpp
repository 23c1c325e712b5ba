// Marks of image formats.
#include "drivers/image/format.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <array>

namespace diskferry {
namespace {
using namespace std::string_view_literals;
struct Mark {
  std::size_t offset;
  std::string_view bytes;
  std::string_view format;
};
constexpr std::array marks{
    Mark{0, "QFI\xfb\x00\x00\x00\x01"sv, "qcow"},  // version 1, another format
    Mark{0, "QFI\xfb"sv, "qcow2"},
    Mark{0, "KDMV"sv, "vmdk"},
    Mark{0, "COWD"sv, "vmdk"},
    Mark{0, "# Disk DescriptorFile"sv, "vmdk"},
    Mark{0, "vhdxfile"sv, "vhdx"},
    Mark{0, "conectix"sv, "vpc"},
    Mark{64, "\x7f\x10\xda\xbe"sv, "vdi"},
    Mark{0, "QED\0"sv, "qed"},
    Mark{0, "LUKS\xba\xbe"sv, "luks"},
    Mark{0, "WithoutFreeSpace"sv, "parallels"},
    Mark{0, "WithouFreSpacExt"sv, "parallels"},
};
bool is_there(std::span<const std::byte> bytes, const Mark& mark) {
  return bytes.size() >= mark.offset + mark.bytes.size() &&
         std::ranges::equal(bytes.subspan(mark.offset, mark.bytes.size()), as_bytes(mark.bytes));
}
}  // namespace

std::string_view probe_format(std::span<const std::byte> start, std::span<const std::byte> end) {
  for (const Mark& mark : marks) {
    if (is_there(start, mark)) return mark.format;
  }
  if (is_there(end, {0, "conectix"sv, "vpc"})) return "vpc";
  return "raw";
}

std::string_view canonical_format(std::string_view name) {
  return name == "file" || name == "host_device" ? "raw" : name;
}

}  // namespace diskferry
