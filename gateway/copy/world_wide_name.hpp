// The name that a disk of a storage network has on every host that sees it, as the kernel tells it. Used for
// the identity of storage: two hosts that name the same one have the same disk.
#pragma once

#include <string>

namespace diskferry {

/// "naa.600140...", of a partition with where it begins ("naa.600140...+2048"); `folder` is the device's in
/// sysfs ("/sys/dev/block/8:16"). Empty where there is none, or one that other disks may have, too: of
/// emulated and cloned disks, and of volume groups, which hosts made of one image have in common. Blocks for
/// a moment.
std::string world_wide_name(const std::string& folder);

}  // namespace diskferry
