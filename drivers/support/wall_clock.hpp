// The time of day, for what is noted and told. What is waited for goes by a Clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace diskferry {

/// Milliseconds since 1970. May jump, and be wrong.
inline std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace diskferry
