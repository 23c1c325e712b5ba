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
    Mark{0, "\xbe\xba\xfe\xca\0\0\0\0"sv, "vmdk"},  // SE sparse: 0xcafebabe as 64 bits, little-endian
    Mark{0, "Bochs Virtual HD Image"sv, "bochs"},
    Mark{0, "#!/bin/sh\n#V2.0 Format\n"sv, "cloop"},
};
/// The last 512 bytes: the footer of a fixed VHD (which old programs made a byte shorter) and of a DMG.
constexpr std::array end_marks{
    Mark{0, "conectix"sv, "vpc"}, Mark{1, "conectix"sv, "vpc"},
    Mark{0, "koly\0\0\0\4\0\0\2\0"sv, "dmg"},  // version 4, 512 bytes long
};

struct Ending {
  std::string_view text;
  std::string_view format;
};
constexpr std::array endings{
    Ending{".vmdk", "vmdk"},
    Ending{".vhdx", "vhdx"},
    Ending{".avhdx", "vhdx"},
    Ending{".vhd", "vpc"},
    Ending{".avhd", "vpc"},
    Ending{".vpc", "vpc"},
    Ending{".vdi", "vdi"},
    Ending{".qed", "qed"},
    Ending{".hdd", "parallels"},
    Ending{".hds", "parallels"},
    Ending{".qcow", "qcow"},
    Ending{".dmg", "dmg"},
    Ending{".parallels", "parallels"},
    Ending{".bochs", "bochs"},
    Ending{".cloop", "cloop"},
    // Told by their names only.
    Ending{".qcow2", "qcow2"},
    Ending{".ova", "ova"},
};

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
/// Those hypervisors come from where the case of names does not matter.
bool ends_with(std::string_view path, std::string_view ending) noexcept {
  return path.size() > ending.size() &&
         std::ranges::equal(path.substr(path.size() - ending.size()), ending, {}, lower);
}

bool is_there(std::span<const std::byte> bytes, const Mark& mark) {
  return bytes.size() >= mark.offset + mark.bytes.size() &&
         std::ranges::equal(bytes.subspan(mark.offset, mark.bytes.size()), as_bytes(mark.bytes));
}
/// A VMDK descriptor: comments and empty lines in front of "version=" and a number.
bool is_vmdk_descriptor(std::span<const std::byte> start) {
  std::string_view text(reinterpret_cast<const char*>(start.data()), std::min(start.size(), probe_bytes));
  bool has_comment = false;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool is_comment = line.starts_with('#');
    if (!is_comment && line.find_first_not_of(" \t") != std::string_view::npos)
      return has_comment && (line == "version=1" || line == "version=2" || line == "version=3");
    if (end == std::string_view::npos) return false;
    has_comment = has_comment || is_comment;
    text.remove_prefix(end + 1);
  }
  return false;
}
}  // namespace

std::string_view probe_format(std::span<const std::byte> start, std::span<const std::byte> end) {
  for (const Mark& mark : marks) {
    if (is_there(start, mark)) return mark.format;
  }
  for (const Mark& mark : end_marks) {
    if (is_there(end, mark)) return mark.format;
  }
  if (is_vmdk_descriptor(start)) return "vmdk";
  return "raw";
}

bool name_says(std::string_view path, std::string_view format) noexcept {
  return std::ranges::any_of(
      endings, [&](const Ending& one) { return one.format == format && ends_with(path, one.text); });
}

std::string_view ending_of_format(std::string_view path) noexcept {
  const auto found =
      std::ranges::find_if(endings, [&](const Ending& one) { return ends_with(path, one.text); });
  return found == endings.end() ? std::string_view() : found->text;
}

bool name_says_raw(std::string_view path) noexcept {
  if (path.ends_with(".raw") || ends_with(path, "-flat.vmdk")) return true;
  if (!ends_with(path, ".vmdk")) return false;
  path.remove_suffix(5);
  return path.size() > 5 && lower(path[path.size() - 4]) == 'f' && path[path.size() - 5] == '-' &&
         std::ranges::all_of(path.substr(path.size() - 3), is_digit);
}

std::string_view canonical_format(std::string_view name) {
  return name == "file" || name == "host_device" ? "raw" : name;
}

}  // namespace diskferry
