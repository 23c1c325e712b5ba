// Both hypervisors of a move under libvirt, and what a machine needs of them whether it runs or not.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/move_context.hpp"
#include "gateway/move/preflight.hpp"

#include <memory>

namespace diskferry {

/// Thread: all on one reactor. Lifetime: close() before destruction.
struct LibvirtEnds {
  std::unique_ptr<Libvirt> source{};
  std::unique_ptr<Libvirt> target{};

  /// Both, and the other gateway.
  Task<Result<void>> connect(MoveContext& move);
  Task<Result<void>> connect_here(MoveContext& move);
  /// Refuses what the preflight finds, chooses the disks' routes, has the other gateway make the targets, and
  /// rewrites the definitions.
  Task<Result<void>> prepare(MoveContext& move);
  /// The definition here is removed; what cannot be is noted as left over.
  Task<void> undefine_source(MoveContext& move);
  Task<void> close();

 private:
  /// Returns what it found out on the way.
  Task<Result<PreflightFacts>> refuse_blockers_now(MoveContext& move);
};

}  // namespace diskferry
