// What format an image has, by its first bytes. Pure. Asked for sources whose format nobody gave, and, more
// narrowly, for backing images that their overlay does not declare; never for a target.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace diskferry {

/// Bytes that probe_format() wants to see.
inline constexpr std::size_t probe_bytes = 4096;

/// "qcow2", "vmdk", "vhdx", ... or "raw" when nothing is recognised. `end`: the last 512 bytes, where a fixed
/// VHD and a DMG have their marks.
std::string_view probe_format(std::span<const std::byte> start, std::span<const std::byte> end);

/// Whether a file of this name is meant to be of that foreign format: ".vmdk", ".vhd", ... A guest can write
/// any mark into its raw disk, but the name is the operator's, so that both together are believed.
bool name_says(std::string_view path, std::string_view format) noexcept;
/// The ending by which a name stands for another format than raw, whatever its case: ".vmdk", ".qcow2";
/// empty: it does not.
std::string_view ending_of_format(std::string_view path) noexcept;
/// ".raw", and the names of VMware's raw extents ("disk-flat.vmdk", "disk-f001.vmdk"): what is in there is
/// the guest's, whatever it looks like.
bool name_says_raw(std::string_view path) noexcept;

/// How QEMU and libvirt name what is raw here ("raw", "file", "host_device"), else the name itself.
std::string_view canonical_format(std::string_view name);

}  // namespace diskferry
