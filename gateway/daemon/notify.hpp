// Telling the service manager how the daemon is doing, by the protocol of sd_notify(3).
#pragma once

#include <string_view>

namespace diskferry::daemon {

/// "READY=1", "STOPPING=1", "STATUS=...". Does nothing where no service manager asked (NOTIFY_SOCKET).
/// Best effort, never waits.
void notify_service_manager(std::string_view state) noexcept;

}  // namespace diskferry::daemon
