// The daemon: makes the rooms, wires them together, and ends them in order. Used by main.cpp alone.
#pragma once

#include "gateway/config/config.hpp"
#include "gateway/runtime/runtime.hpp"

#include <ostream>

namespace diskferry::daemon {

/// Runs until the calling task is cancelled (SIGINT, SIGTERM), and then ends in order: no new commands, those
/// being handled end, requests of NBD clients end, what was written is flushed, connections are closed.
/// Prints "READY ADDRESS..." to `out` once everything is there. Errors: those of starting, and of the last
/// flushes.
Task<Result<void>> run_daemon(DriverContext& context, const Config& config, std::ostream& out);

}  // namespace diskferry::daemon
