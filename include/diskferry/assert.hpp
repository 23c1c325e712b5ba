// Assertions for what only our own code can break; on in every build. What a peer, a file or an operator sent
// is checked and answered with an Error, never asserted.
#pragma once

#include <source_location>

namespace diskferry {
[[noreturn]] void assertion_failed(const char* expression, const char* explanation,
                                   std::source_location where = std::source_location::current()) noexcept;
}

/// Ends the process with the place and the explanation when `condition` is false.
#define DISKFERRY_ASSERT(condition, explanation)              \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::diskferry::assertion_failed(#condition, explanation); \
  } while (false)
