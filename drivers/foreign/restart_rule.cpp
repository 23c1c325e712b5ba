#include "drivers/foreign/restart_rule.hpp"

namespace diskferry::foreign {
namespace {
constexpr unsigned crashes_max = 1;
}

AfterEnd after_end(const ChildEnd& end) noexcept {
  const bool is_on_server = end.keep_trying != Duration::zero();
  if (!end.was_open) return end.was_asked ? AfterEnd::unanswered : AfterEnd::give_up;
  if (!end.was_asked && (end.by_signal || !is_on_server))
    return end.crashes < crashes_max ? AfterEnd::restart_after_crash : AfterEnd::give_up;
  if (!is_on_server) return AfterEnd::restart;
  // It cannot open what it had opened, or does not come to an end with it.
  if (end.away <= end.keep_trying) return AfterEnd::restart_after_pause;
  return end.was_asked ? AfterEnd::unanswered : AfterEnd::give_up;
}

}  // namespace diskferry::foreign
