// The names of virsh, by number: the enumerators are consecutive from 0 and part of libvirt's stable
// interface.
#include "gateway/hypervisor/libvirt_event_names.hpp"

#include <span>
#include <string_view>

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
using Details = std::span<const std::string_view>;
constexpr std::string_view defined[] = {"added", "updated", "renamed", "from snapshot"};
constexpr std::string_view undefined[] = {"removed", "renamed"};
constexpr std::string_view started[] = {"booted", "migrated", "restored", "from snapshot", "woken up"};
constexpr std::string_view suspended[] = {"paused",    "migrated",  "I/O error",
                                          "watchdog",  "restored",  "from snapshot",
                                          "API error", "post-copy", "post-copy failed"};
constexpr std::string_view resumed[] = {"unpaused", "migrated", "from snapshot", "post-copy",
                                        "post-copy failed"};
constexpr std::string_view stopped[] = {"shut down", "destroyed", "crashed",      "migrated",
                                        "saved",     "failed",    "from snapshot"};
constexpr std::string_view shutdown[] = {"finished", "by the guest", "by the host"};
constexpr std::string_view pm_suspended[] = {"to memory", "to disk"};
constexpr std::string_view crashed[] = {"panicked", "crash loaded"};

struct EventRow {
  std::string_view name;
  LibvirtEvent::Kind kind;
  Details details;
};
using Kind = LibvirtEvent::Kind;
constexpr EventRow events[] = {
    {"defined", Kind::defined, defined},         {"undefined", Kind::undefined, undefined},
    {"started", Kind::started, started},         {"suspended", Kind::suspended, suspended},
    {"resumed", Kind::resumed, resumed},         {"stopped", Kind::stopped, stopped},
    {"shutting down", Kind::shutdown, shutdown}, {"sleeping", Kind::other, pm_suspended},
    {"crashed", Kind::crashed, crashed},
};
static_assert(VIR_DOMAIN_EVENT_CRASHED == std::size(events) - 1 && VIR_DOMAIN_EVENT_STOPPED == 5);

const EventRow* row_of_event(int event) noexcept {
  const auto index = static_cast<std::size_t>(event);
  return event >= 0 && index < std::size(events) ? &events[index] : nullptr;
}
}  // namespace

LibvirtEvent::Kind event_kind(int event) noexcept {
  const auto* row = row_of_event(event);
  return row == nullptr ? Kind::other : row->kind;
}

std::string event_text(int event, int detail) {
  const auto* row = row_of_event(event);
  if (row == nullptr) return "event " + std::to_string(event);
  const auto index = static_cast<std::size_t>(detail);
  const bool is_known = detail >= 0 && index < row->details.size();
  return std::string(row->name) + ": " +
         (is_known ? std::string(row->details[index]) : std::to_string(detail));
}

}  // namespace diskferry
