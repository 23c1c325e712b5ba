// The values in and out of JSON.
#include "gateway/move/target_machine.hpp"

#include "gateway/move/json_fields.hpp"

#include <algorithm>
#include <array>

#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr std::array<std::string_view, 6> verbs{"describe", "receive", "arrived", "resume", "state", "end"};
constexpr std::array states{VmState::absent, VmState::shut_off, VmState::running, VmState::paused,
                            VmState::crashed};

json::object encode(const QmpMachine& machine) {
  json::array disks;
  for (const QmpMachineDisk& disk : machine.disks)
    disks.push_back({{"names", json::array(disk.names.begin(), disk.names.end())},
                     {"node", disk.node},
                     {"file", disk.filename},
                     {"format", disk.format},
                     {"size-bytes", disk.size_bytes},
                     {"read-only", disk.is_read_only}});
  return {{"name", machine.name},
          {"uuid", machine.uuid},
          {"version", machine.version},
          {"status", machine.status},
          {"machine-type", machine.machine_type},
          {"cpu-model", machine.cpu_model},
          {"accelerator", machine.accelerator},
          {"memory-bytes", machine.memory_bytes},
          {"vcpus", machine.vcpus},
          {"jobs", machine.jobs},
          {"migration", machine.migration},
          {"disks", std::move(disks)}};
}

Result<QmpMachineDisk> read_disk(const json::object& object) {
  QmpMachineDisk disk;
  JsonFields fields(object, "a disk of the answer");
  fields.take("names", disk.names);
  fields.take("node", disk.node);
  fields.take("file", disk.filename);
  fields.take("format", disk.format);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("read-only", disk.is_read_only);
  DISKFERRY_CHECK(fields.finish());
  return disk;
}

Result<QmpMachine> read_machine(const json::object& object) {
  QmpMachine machine;
  JsonFields fields(object, "the machine of the answer");
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
  fields.each("disks", [&](const json::object& each) -> Result<void> {
    DISKFERRY_TRY(QmpMachineDisk disk, read_disk(each));
    machine.disks.push_back(std::move(disk));
    return {};
  });
  DISKFERRY_CHECK(fields.finish());
  return machine;
}

}  // namespace

std::string_view to_string(MachineVerb verb) noexcept {
  return verbs[static_cast<std::size_t>(verb)];
}

std::string to_json(const TargetMachineCall& call) {
  return json::serialize(json::object{{"move", call.move},
                                      {"monitor", call.monitor},
                                      {"verb", to_string(call.verb)},
                                      {"listen", call.listen},
                                      {"multifd-channels", call.multifd_channels},
                                      {"tls", call.tls}});
}

Result<TargetMachineCall> parse_target_machine_call(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the request"));
  TargetMachineCall call;
  std::string verb;
  JsonFields fields(object, "the request");
  fields.take("move", call.move);
  fields.take("monitor", call.monitor);
  fields.take("verb", verb);
  fields.take("listen", call.listen);
  fields.take("multifd-channels", call.multifd_channels);
  fields.take("tls", call.tls);
  DISKFERRY_CHECK(fields.finish());
  const auto known = std::ranges::find(verbs, verb);
  if (known == verbs.end())
    return unexpected(fail(ErrorKind::invalid_argument, "read the request").why("there is no such verb"));
  call.verb = static_cast<MachineVerb>(known - verbs.begin());
  return call;
}

std::string to_json(const TargetMachineAnswer& answer) {
  return json::serialize(
      json::object{{"state", to_string(answer.state)}, {"machine", json::array{encode(answer.machine)}}});
}

Result<TargetMachineAnswer> parse_target_machine_answer(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the answer"));
  TargetMachineAnswer answer;
  std::string state;
  JsonFields fields(object, "the answer");
  fields.take("state", state);
  fields.each("machine", [&](const json::object& each) -> Result<void> {
    DISKFERRY_TRY(answer.machine, read_machine(each));
    return {};
  });
  DISKFERRY_CHECK(fields.finish());
  const auto is_it = [&state](VmState one) { return to_string(one) == state; };
  const auto known = std::ranges::find_if(states, is_it);
  if (known == states.end())
    return unexpected(fail(ErrorKind::protocol, "read the answer").why("there is no such state"));
  answer.state = *known;
  return answer;
}

}  // namespace diskferry
