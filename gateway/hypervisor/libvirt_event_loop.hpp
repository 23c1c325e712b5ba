// libvirt's event loop: keep-alive and events of every connection need one thread that runs it. libvirt has
// one for the whole process, so this is the one thing here that is not owned by a connection but shared by
// them.
#pragma once

#include "diskferry/error.hpp"

#include <memory>

namespace diskferry {

/// The loop runs from the first lease until the last one is dropped; then its thread is joined.
/// Thread: any, but the loop's own: a callback of libvirt must not drop a lease. Dropping the last one takes
/// some milliseconds, in which libvirt lets go of the connections that were closed.
class EventLoopLease {
 public:
  /// Call before connecting: libvirt wants to know its loop by then. Errors: internal, too_large (no thread).
  static Result<std::unique_ptr<EventLoopLease>> take();
  ~EventLoopLease();
  EventLoopLease(const EventLoopLease&) = delete;
  EventLoopLease& operator=(const EventLoopLease&) = delete;

 private:
  EventLoopLease() = default;
};

}  // namespace diskferry
