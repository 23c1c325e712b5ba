// Mounts: the volumes that this process has mounted. One mount is shared by all devices on its volume, and
// kept for the next one: mounting takes 50 ms and unmounting ten seconds.
//
// An attempt to mount runs on a thread of its own, because glfs_init() of a client that the volume refuses
// does not return, and cannot be made to. Such an attempt is left behind with its eleven threads. How many of
// them there may be is bounded, for each volume and for all; each ends when the brick's connection does.
#pragma once

#include "diskferry/clock.hpp"
#include "drivers/gluster/endpoint.hpp"
#include "drivers/gluster/volume.hpp"

namespace diskferry::gluster {

struct Mount {
  VolumePtr volume;
  bool was_there = false;  ///< mounted earlier, for somebody else
};

/// Errors: not_found (no such volume), permission (the volume refuses this host), gone, timed_out, too_large
/// (too many attempts left behind, or no thread can be started). Cancel: at once.
Task<Result<Mount>> mount(Clock& clock, const Endpoint& endpoint);
/// The next mount() of its volume makes a new one. For one that turned out to be of no use any more.
void forget_mount(const VolumePtr& volume);
/// Unmounts, in the background, what nobody uses and is too much to keep. Called when a device has let go.
void trim_mounts();

}  // namespace diskferry::gluster
