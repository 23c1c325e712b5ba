// What this host's own names stand for where the storage is on a network: a file on a mounted NFS export, an
// RBD image or a LUN that the kernel has attached. So that a volume is known also when one side of a copy
// names it through the kernel and the other through a driver. All of it blocks for a moment.
#pragma once

#include "diskferry/image_uri.hpp"

#include <string>
#include <vector>

namespace diskferry {

/// Server, socket and export of a network disk in one text, as every spelling of it gives.
std::string network_name(const ImageUri& uri);
/// The same where the server is called `host`.
std::string network_name(const ImageUri& uri, std::string host);

/// The network_name() of what `path` (absolute, no symbolic link in it) is on an NFS server, by the name that
/// it was mounted by and by the server's address, as the table of mounts has them in the form of
/// /proc/self/mountinfo (proc(5)). None: it is on no NFS mount.
std::vector<std::string> nfs_names(std::string_view mountinfo, const std::string& path);

/// "rbd|FSID|POOL ID|NAMESPACE|IMAGE ID" of a block device that the kernel's rbd driver made. `devices` is
/// /sys/bus/rbd/devices, but in tests; `folder` is the block device's in sysfs. Empty: it is none, or a
/// snapshot.
std::string mapped_rbd_name(const std::string& devices, const std::string& folder);

}  // namespace diskferry
