// libvirt's lifecycle events in words. Pure.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"

#include <string>

namespace diskferry {

/// `event` is a virDomainEventType.
LibvirtEvent::Kind event_kind(int event) noexcept;
/// "suspended: migrated"; numbers that are not known stay numbers.
std::string event_text(int event, int detail);

}  // namespace diskferry
