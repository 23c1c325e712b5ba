// Both hypervisors of a move under libvirt, and what a machine needs of them whether it runs or not.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/move/move_context.hpp"
#include "gateway/move/preflight.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

/// Thread: all on one reactor. Lifetime: close() before destruction.
struct LibvirtEnds {
  std::unique_ptr<Libvirt> source{};
  std::unique_ptr<Libvirt> target{};
  bool has_lost_source = false;  ///< the connection to libvirt there
  bool has_lost_target = false;

  /// Both, and the other gateway.
  Task<Result<void>> connect(MoveContext& move);
  Task<Result<void>> connect_here(MoveContext& move);
  /// Refuses what the preflight finds, chooses the disks' routes, has the other gateway make the targets, and
  /// rewrites the definitions.
  Task<Result<void>> prepare(MoveContext& move);
  /// What a host says of the machine; nullopt: it cannot be asked now. A connection that is lost is made
  /// anew.
  Task<std::optional<VmCondition>> ask_source(MoveContext& move);
  Task<std::optional<VmCondition>> ask_target(MoveContext& move);
  /// The definition here is removed; what cannot be is noted as left over.
  Task<void> undefine_source(MoveContext& move);
  Task<void> close();

 private:
  /// Returns what it found out on the way.
  Task<Result<PreflightFacts>> refuse_blockers_now(MoveContext& move);
  struct Host {
    std::unique_ptr<Libvirt>& libvirt;
    bool& has_lost;
  };
  Task<std::optional<VmCondition>> ask(MoveContext& move, Host host, std::string uri);

  std::vector<std::unique_ptr<Libvirt>>
      lost_{};  ///< closed; a question may still be on its way back from one
};

}  // namespace diskferry
