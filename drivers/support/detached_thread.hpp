// Threads that nobody joins, for calls of libraries that cannot be cancelled and may hang for longer than
// anybody wants to wait, the program's end included.
#pragma once

#include <functional>

namespace diskferry {

/// Starts a thread that ends by itself, or with the process. It takes no signals: those are for the threads
/// that expect them. `run` owns all that it touches, and whoever starts such threads bounds their number.
/// Throws std::system_error where no thread can be started.
void start_detached(std::function<void()> run);

}  // namespace diskferry
