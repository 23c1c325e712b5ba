// The values in and out of JSON.
#include "gateway/move/target_machine.hpp"

#include "gateway/move/json_fields.hpp"

#include <array>

namespace diskferry {
namespace {

constexpr std::array<std::string_view, 6> verb_names{"describe", "receive", "arrived",
                                                     "resume",   "state",   "end"};
constexpr std::array verbs{MachineVerb::describe, MachineVerb::receive, MachineVerb::arrived,
                           MachineVerb::resume,   MachineVerb::state,   MachineVerb::end};
constexpr std::array states{VmState::absent, VmState::shut_off, VmState::running, VmState::paused,
                            VmState::crashed};

}  // namespace

std::string_view to_string(MachineVerb verb) noexcept {
  return verb_names[static_cast<std::size_t>(verb)];
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<QmpMachineDisk> auto& disk) {
  fields.take("names", disk.names);
  fields.take("node", disk.node);
  fields.take("file", disk.filename);
  fields.take("format", disk.format);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("read-only", disk.is_read_only);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<QmpMachine> auto& machine) {
  fields.take("name", machine.name);
  fields.take("uuid", machine.uuid);
  fields.take("version", machine.version);
  fields.take("status", machine.status);
  fields.take("machine-type", machine.machine_type);
  fields.take("cpu-model", machine.cpu_model);
  fields.take("accelerator", machine.accelerator);
  fields.take("memory-bytes", machine.memory_bytes);
  fields.take("vcpus", machine.vcpus);
  fields.take("jobs", machine.jobs);
  fields.take("migration", machine.migration);
  fields.take_list("disks", machine.disks);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<TargetMachineCall> auto& call) {
  fields.take("move", call.move);
  fields.take("monitor", call.monitor);
  fields.take_required("verb", call.verb, Words<MachineVerb>{verbs, to_string});
  fields.take("listen", call.listen);
  fields.take("multifd-channels", call.multifd_channels);
  fields.take("tls", call.tls);
}

std::string to_json(const TargetMachineCall& call) {
  return write_json(call);
}

Result<TargetMachineCall> parse_target_machine_call(std::string_view text) {
  return read_json<TargetMachineCall>(text, "the request");
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<TargetMachineAnswer> auto& answer) {
  fields.take_required("state", answer.state, Words<VmState>{states, to_string});
  fields.take_object("machine", answer.machine);
}

std::string to_json(const TargetMachineAnswer& answer) {
  return write_json(answer);
}

Result<TargetMachineAnswer> parse_target_machine_answer(std::string_view text) {
  return read_json<TargetMachineAnswer>(text, "the answer");
}

}  // namespace diskferry
