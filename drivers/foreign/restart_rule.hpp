// What follows when a child has ended: another one, at once or after a pause, or none. Pure.
#pragma once

#include "diskferry/clock.hpp"

#include <cstdint>

namespace diskferry::foreign {

struct ChildEnd {
  bool was_open = false;   ///< an image had been opened
  bool was_asked = false;  ///< we ended it, because the server did not answer
  bool by_signal = false;
  unsigned crashes = 0;    ///< those before
  Duration away{};         ///< since the first failure that no success followed; idle time is none of it
  Duration keep_trying{};  ///< QemuNbdOptions::keep_trying
};

enum class AfterEnd : std::uint8_t {
  restart,
  restart_after_crash,  ///< which counts
  restart_after_pause,  ///< the server is away
  give_up,              ///< the reason is what the child said
  unanswered            ///< the reason is that the server did not answer: we ended the child ourselves
};
AfterEnd after_end(const ChildEnd& end) noexcept;

}  // namespace diskferry::foreign
