#include "gateway/hypervisor/virtual_machine.hpp"

namespace diskferry {

std::string_view to_string(VmState state) noexcept {
  switch (state) {
    case VmState::absent:
      return "absent";
    case VmState::shut_off:
      return "shut_off";
    case VmState::running:
      return "running";
    case VmState::paused:
      return "paused";
    case VmState::crashed:
      return "crashed";
  }
  return "unknown";
}

}  // namespace diskferry
