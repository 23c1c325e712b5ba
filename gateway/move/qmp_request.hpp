// What a request says of a machine that has no libvirt: it is named by its monitor, "qmp:/run/qemu/vm.qmp",
// and so is the QEMU that waits for it on the other host, "qmp://HOST/run/qemu/vm.qmp". Pure. Names come from
// other hosts, too, and a monitor can do anything: what is no plain path or address is refused.
#pragma once

#include "gateway/move/request.hpp"

#include <string>
#include <string_view>

namespace diskferry {

/// The machine moves by the monitors of two QEMUs.
bool is_by_qmp(const MoveRequest& request) noexcept;

/// The path in "qmp:PATH" or "qmp://HOST/PATH". Errors: invalid_argument (no such form, or no plain absolute
/// path: every part begins with a letter, a digit, '-' or '_').
Result<std::string> monitor_path(std::string_view name);

/// "tcp://HOST:PORT", "tcp:HOST:PORT" or "unix:PATH" as QEMU has it. QEMU knows other forms, some of which
/// run programs: nothing else passes. Errors: invalid_argument.
Result<std::string> memory_address(std::string_view uri);

/// Whether a monitor is a socket that this gateway may open: one in `folder`, which the configuration names,
/// with links followed. Errors: permission, with the remedy; those of looking it up (not_found, where nothing
/// is there: it lies in the folder by its name, then).
Result<void> check_monitor_allowed(const std::string& folder, const std::string& path);

/// Of looking for a monitor or connecting to it: no QEMU has that socket.
bool is_nobody_there(const Error& error) noexcept;

/// What can be wrong with such a request alone. Errors: invalid_argument, unsupported (an option that only
/// libvirt knows).
Result<void> check_by_qmp(const MoveRequest& request);

}  // namespace diskferry
