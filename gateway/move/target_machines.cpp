// One connection to the monitor a call: QEMU serves one client at a time, and between calls it is free for
// its operator.
#include "gateway/move/target_machines.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/qmp_request.hpp"

#include <algorithm>

namespace diskferry {
namespace {

/// Less than what a caller waits for the answer.
constexpr Duration step_limit = std::chrono::seconds(30);
constexpr unsigned multifd_channels_max = 255;

}  // namespace

Result<void> TargetMachines::check_named_by_move(const TargetMachineCall& call,
                                                 const std::string& client) const {
  const auto is_it = [&](const TargetDiskRecord& record) {
    return record.request.move == call.move && record.client == client &&
           record.request.monitor == call.monitor;
  };
  if (std::ranges::any_of(disks_.records(), is_it)) return {};
  return unexpected(fail(ErrorKind::permission, "reach QEMU's monitor", printable(call.monitor))
                        .why("no move of this gateway's was prepared for it"));
}

Task<Result<QmpIncoming>> TargetMachines::incoming(const TargetMachineCall& call, Qmp& monitor) const {
  QmpIncoming wanted{.multifd_channels = call.multifd_channels, .tls = call.tls};
  DISKFERRY_CO_TRY(wanted.listen, memory_address(call.listen));
  if (call.multifd_channels > multifd_channels_max)
    co_return unexpected(fail(ErrorKind::invalid_argument, "take the memory").why("at most 255 connections"));
  if (wanted.listen.starts_with("unix:")) {
    // QEMU replaces what is there.
    const auto allowed = check_monitor_allowed(options_.sockets_folder, wanted.listen.substr(5));
    if (!allowed && allowed.error().kind() != ErrorKind::not_found) co_return unexpected(allowed.error());
  }
  wanted.exports_socket = move_socket(options_.move_folder, call.move);
  DISKFERRY_CO_TRY(const QmpMachine machine, co_await describe_by_qmp(monitor));
  for (const TargetDiskRecord& record : disks_.records()) {
    if (record.request.move != call.move || !record.request.through_hypervisor) continue;
    const auto* disk = disk_named(machine, record.request.disk);
    if (disk == nullptr)
      co_return unexpected(fail(ErrorKind::not_found, "find the disk", printable(record.request.disk))
                               .why("the QEMU there has none of that name"));
    wanted.exports.push_back({.node = disk->node, .name = record.request.hypervisor_export});
  }
  co_return wanted;
}

Task<Result<TargetMachineAnswer>> TargetMachines::ask(TargetMachineCall call, Qmp& monitor) {
  QmpIncomingMonitor machine(context_.clock, monitor);
  TargetMachineAnswer answer;
  switch (call.verb) {
    case MachineVerb::describe: {
      DISKFERRY_CO_TRY(answer.machine, co_await describe_by_qmp(monitor));
      break;
    }
    case MachineVerb::receive: {
      DISKFERRY_CO_TRY(QmpIncoming wanted, co_await incoming(call, monitor));
      DISKFERRY_CO_CHECK(co_await machine.receive(std::move(wanted)));
      break;
    }
    case MachineVerb::arrived:
      DISKFERRY_CO_CHECK(co_await machine.wait_for_arrival(step_limit));
      break;
    case MachineVerb::resume:
      DISKFERRY_CO_CHECK(co_await machine.resume(step_limit));
      break;
    case MachineVerb::state:
      break;
    case MachineVerb::end:
      DISKFERRY_CO_CHECK(co_await machine.end());
      co_return answer;
  }
  DISKFERRY_CO_TRY(answer.state, co_await machine.state());
  co_return answer;
}

Task<Result<TargetMachineAnswer>> TargetMachines::call(TargetMachineCall call, std::string client) {
  const bool wants_it_gone = call.verb == MachineVerb::state || call.verb == MachineVerb::end;
  const auto allowed = check_monitor_allowed(options_.sockets_folder, call.monitor);
  if (!allowed && !(wants_it_gone && allowed.error().kind() == ErrorKind::not_found))
    co_return unexpected(allowed.error());
  if (call.verb != MachineVerb::describe) DISKFERRY_CO_CHECK(check_named_by_move(call, client));
  auto monitor = co_await Qmp::connect(context_.clock, call.monitor);
  if (!monitor && wants_it_gone && is_nobody_there(monitor.error())) co_return TargetMachineAnswer{};
  if (!monitor) co_return unexpected(std::move(monitor).error());
  auto answer = co_await ask(std::move(call), **monitor);
  co_await (*monitor)->close();
  co_return answer;
}

}  // namespace diskferry
