// A monitor that is lost is not the machine that is lost: it is connected to again before anything is
// concluded.
#include "gateway/move/qmp_ends.hpp"

#include "gateway/move/qmp_request.hpp"

namespace diskferry {

TargetMachineCall QmpRemoteDestination::call(MachineVerb verb) const {
  return {.move = move_, .monitor = monitor_, .verb = verb};
}

Task<Result<QmpMachine>> QmpRemoteDestination::describe() {
  DISKFERRY_CO_TRY(TargetMachineAnswer answer, co_await gateway_.machine(call(MachineVerb::describe)));
  co_return std::move(answer.machine);
}

Task<Result<void>> QmpRemoteDestination::receive(QmpIncoming incoming) {
  TargetMachineCall wanted = call(MachineVerb::receive);
  wanted.listen = std::move(incoming.listen);
  wanted.multifd_channels = incoming.multifd_channels;
  wanted.tls = incoming.tls;
  DISKFERRY_CO_CHECK(co_await gateway_.machine(std::move(wanted)));
  co_return Result<void>{};
}

Task<Result<void>> QmpRemoteDestination::wait_for_arrival(Duration) {
  DISKFERRY_CO_CHECK(co_await gateway_.machine(call(MachineVerb::arrived)));
  co_return Result<void>{};
}

Task<Result<void>> QmpRemoteDestination::resume(Duration) {
  DISKFERRY_CO_CHECK(co_await gateway_.machine(call(MachineVerb::resume)));
  co_return Result<void>{};
}

Task<Result<VmState>> QmpRemoteDestination::state() {
  DISKFERRY_CO_TRY(const TargetMachineAnswer answer, co_await gateway_.machine(call(MachineVerb::state)));
  co_return answer.state;
}

Task<Result<void>> QmpRemoteDestination::end() {
  DISKFERRY_CO_CHECK(co_await gateway_.machine(call(MachineVerb::end)));
  co_return Result<void>{};
}

QmpRemoteDestination& QmpEnds::target() {
  DISKFERRY_ASSERT(there_.has_value(), "the other end of a move is asked before its gateway is known");
  return *there_;
}

Task<void> QmpEnds::drop() {
  if (source_) co_await source_->close();
  source_.reset();
}

Task<Result<Qmp*>> QmpEnds::source() {
  // Any command would do to see that it is still there.
  if (source_ && co_await source_->execute("query-status")) co_return source_.get();
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("reach QEMU's monitor", options_.source));
  co_await drop();
  DISKFERRY_CO_CHECK(check_monitor_allowed(options_.sockets_folder, options_.source));
  DISKFERRY_CO_TRY(source_, co_await Qmp::connect(context_.clock, options_.source));
  co_return source_.get();
}

Task<Result<boost::json::value>> QmpEnds::ask_source(std::string command, boost::json::object arguments) {
  if (!source_)
    co_return unexpected(fail(ErrorKind::gone, "ask QEMU", options_.source).why("there is no connection"));
  co_return co_await source_->execute(std::move(command), std::move(arguments));
}

Task<Result<VmState>> QmpEnds::source_state() {
  auto monitor = co_await source();
  if (!monitor && is_nobody_there(monitor.error())) co_return VmState::absent;
  if (!monitor) co_return unexpected(std::move(monitor).error());
  DISKFERRY_CO_TRY(const std::string status, co_await qmp_status(**monitor, "query-status"));
  co_return vm_state_of_qmp(status);
}

Task<Result<QmpMachine>> QmpEnds::describe_source() {
  DISKFERRY_CO_TRY(Qmp* const monitor, co_await source());
  co_return co_await describe_by_qmp(*monitor);
}

Task<Result<void>> QmpEnds::take_back(std::vector<QmpDisk> disks) {
  auto monitor = co_await source();
  if (!monitor && is_nobody_there(monitor.error())) co_return Result<void>{};
  if (!monitor) co_return unexpected(std::move(monitor).error());
  co_return co_await take_back_by_qmp(context_.clock, **monitor, std::move(disks));
}

Task<Result<void>> QmpEnds::end_source() {
  auto monitor = co_await source();
  if (!monitor && is_nobody_there(monitor.error())) co_return Result<void>{};
  if (!monitor) co_return unexpected(std::move(monitor).error());
  DISKFERRY_CO_TRY(const std::string status, co_await qmp_status(**monitor, "query-status"));
  // Somebody may have begun to use it for something else.
  if (vm_state_of_qmp(status) == VmState::running)
    co_return unexpected(
        fail(ErrorKind::in_use, "end the QEMU", options_.source).why("it is " + status + " again"));
  QmpIncomingMonitor machine(context_.clock, **monitor);
  co_return co_await machine.end();
}

Task<void> QmpEnds::close() {
  co_await drop();
  there_.reset();
}

QmpVerdict decide_by_qmp(bool was_decided, std::optional<VmState> source,
                         std::optional<VmState> target) noexcept {
  if (!was_decided) return QmpVerdict::back;
  if (target == VmState::running)
    return source == VmState::running ? QmpVerdict::split : QmpVerdict::committed;
  // Somebody took it back by hand; what is at the other end never ran, or has ended.
  if (source == VmState::running && target) return QmpVerdict::back;
  if (source != VmState::running && source && target == VmState::paused) return QmpVerdict::forward;
  // A destination that was told to run and is gone has written to its disks, perhaps: the source's are the
  // past.
  return QmpVerdict::unknown;
}

}  // namespace diskferry
