// libvirt resumes the target before it removes the source, and resumes the source only after the target was
// given up: so a target that runs is the proof of the commit, and a target that is paused has never written.
#include "gateway/move/outcome.hpp"

namespace diskferry {

std::string_view to_string(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::committed:
      return "committed";
    case Outcome::rolled_back:
      return "rolled back";
    case Outcome::stop_target:
      return "half-made target";
    case Outcome::resume_source:
      return "stopped on the source";
    case Outcome::ended:
      return "ended";
    case Outcome::undecided:
      return "undecided";
    case Outcome::split:
      return "running twice";
  }
  return "undecided";
}

namespace {

Outcome when_both_answer(VmState source, VmState target, bool was_paused) noexcept {
  const bool source_gone =
      source == VmState::absent || source == VmState::shut_off || source == VmState::crashed;
  const bool target_gone =
      target == VmState::absent || target == VmState::shut_off || target == VmState::crashed;
  if (source == VmState::running && target == VmState::running) return Outcome::split;
  if (target == VmState::running) return Outcome::committed;
  if (source_gone && target == VmState::paused) {
    // The source let go, which it only does once the target has all: a guest that was paused stays paused
    // there.
    return Outcome::committed;
  }
  if (source_gone && target_gone) return Outcome::ended;
  const bool source_goes_on = source == VmState::running || was_paused;
  if (!source_goes_on) return Outcome::resume_source;
  return target_gone ? Outcome::rolled_back : Outcome::stop_target;
}

}  // namespace

Outcome decide(const WhoRuns& said) noexcept {
  if (said.source_job_active) return Outcome::undecided;
  if (said.source && said.target) return when_both_answer(*said.source, *said.target, said.was_paused);
  // A source that runs is in charge whatever the other side is: libvirt never lets both run.
  if (said.source == VmState::running) return Outcome::rolled_back;
  // A target that runs while the source cannot be asked has been resumed by libvirt, after the source's data
  // was all there.
  if (said.target == VmState::running) return Outcome::committed;
  return Outcome::undecided;
}

}  // namespace diskferry
