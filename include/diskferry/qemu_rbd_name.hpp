// QEMU's own form of an RBD image's name, which libvirt, OpenStack and Proxmox store. Called by
// ImageUri::parse; the name is hostile, and nothing is opened.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <string_view>

namespace diskferry {

bool is_qemu_rbd_name(std::string_view text) noexcept;
/// The URI that means the same. Options that are no keys of ours stay what they are, so that the driver
/// refuses them by name. Errors: invalid_argument, without any part of the name: an option may be a secret.
Result<std::string> translate_qemu_rbd_name(std::string_view text);

}  // namespace diskferry
