// libvirt resumes the target before it removes the source, and resumes the source only after the target was
// given up, or cannot be reached: so a target that runs is the proof of the commit, and one that has not
// arrived has never written.
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

bool is_gone(VmState state) noexcept {
  return state == VmState::absent || state == VmState::shut_off || state == VmState::crashed;
}

Outcome when_target_is_paused(const WhoRuns& said, VmState source) noexcept {
  if (said.target_has_arrived) {
    // It has all, so the source had let go of it. Whether it ever ran there is not known: a source that runs
    // all the same is for people to look at.
    return source == VmState::running ? Outcome::split : Outcome::committed;
  }
  // The source's machine ended by itself. The hypervisors know whether all had gone over by then: they
  // resume the other one in a moment, or end it.
  if (is_gone(source)) return Outcome::undecided;
  const bool is_to_run = source == VmState::paused && said.source_waits && !said.was_paused;
  return is_to_run ? Outcome::resume_source : Outcome::stop_target;
}

Outcome when_both_answer(const WhoRuns& said, VmState source, VmState target) noexcept {
  if (source == VmState::running && target == VmState::running) return Outcome::split;
  if (target == VmState::running) return Outcome::committed;
  if (target == VmState::paused) return when_target_is_paused(said, source);
  if (is_gone(source)) return Outcome::ended;
  // Paused by an operator, before the move or after its end, it stays so.
  const bool is_to_run = source == VmState::paused && said.source_waits && !said.was_paused;
  return is_to_run ? Outcome::resume_source : Outcome::rolled_back;
}

}  // namespace

Outcome decide(const WhoRuns& said) noexcept {
  if (said.source_job_active) return Outcome::undecided;
  if (said.source && said.target) return when_both_answer(said, *said.source, *said.target);
  // A source that runs is in charge, unless the target had been told to run: libvirt that lost the answer to
  // that resumes the source, too, and leaves it to others to keep one of them from it.
  if (said.source == VmState::running && !said.may_have_gone_over) return Outcome::rolled_back;
  // A target that runs while the source cannot be asked has been resumed by libvirt, after the source's data
  // was all there.
  if (said.target == VmState::running) return Outcome::committed;
  return Outcome::undecided;
}

namespace {
Outcome when_target_waits(const WhoRuns& said, VmState source) noexcept {
  if (source == VmState::running) return Outcome::stop_target;
  // The source had let go of it: forward, whatever is left of it here.
  if (said.target_has_arrived) return Outcome::committed;
  return when_target_is_paused(said, source);
}
}  // namespace

Outcome decide_through(const WhoRuns& said) noexcept {
  // With one side silent nothing can be undone there, nor handed over.
  if (said.source_job_active || !said.source || !said.target) return Outcome::undecided;
  if (said.target == VmState::paused) return when_target_waits(said, *said.source);
  return when_both_answer(said, *said.source, *said.target);
}

}  // namespace diskferry
