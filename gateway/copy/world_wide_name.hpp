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

/// The same of a device with all that it lies on, as device mapper stacks them: "naa.6001405...",
/// "LVM-...(naa.6001405...)". A name given by the mapper is cloned with the disk, so it counts only together
/// with those below. Empty: one of them has no name of its own. `devices`: /sys/dev/block, but in tests;
/// `number`: "253:0". Blocks for a moment.
std::string layered_device_name(const std::string& devices, const std::string& number);

}  // namespace diskferry
