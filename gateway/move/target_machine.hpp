// What one gateway asks another of the QEMU that waits there for a machine: a few verbs, and nothing that a
// monitor could do besides. Values and their JSON.
#pragma once

#include "gateway/hypervisor/qmp_machine.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry {

enum class MachineVerb : std::uint8_t {
  describe,  ///< what machine it has; changes nothing
  receive,   ///< take the memory at `listen`
  arrived,   ///< wait until the whole machine is there, paused
  resume,    ///< let it run
  state,     ///< how it stands
  end,       ///< end the QEMU
};
std::string_view to_string(MachineVerb verb) noexcept;

struct TargetMachineCall {
  std::string move{};
  std::string monitor{};  ///< path of the socket on that host
  MachineVerb verb = MachineVerb::describe;
  std::string listen{};           ///< of `receive`: "tcp:HOST:PORT"
  unsigned multifd_channels = 0;  ///< of `receive`
  bool tls = false;               ///< of `receive`
};
std::string to_json(const TargetMachineCall& call);
Result<TargetMachineCall> parse_target_machine_call(std::string_view json);

struct TargetMachineAnswer {
  VmState state = VmState::absent;
  QmpMachine machine{};  ///< of `describe`
};
std::string to_json(const TargetMachineAnswer& answer);
Result<TargetMachineAnswer> parse_target_machine_answer(std::string_view json);

}  // namespace diskferry
