// Everything that speaks against a move, found before anything is changed and told at once. Pure: from facts
// to findings. preflight_collect.hpp gathers the facts, preflight_report.hpp shows the findings.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"
#include "gateway/move/host_facts.hpp"
#include "gateway/move/request.hpp"
#include "gateway/move/target_facts.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// One disk of the machine with what was learnt of it on both sides.
struct DiskFacts {
  VmDisk disk{};
  std::optional<MoveDisk> move{};                  ///< where it goes; none: it was not named
  std::uint64_t size_bytes = 0;                    ///< as the guest sees it; 0: not known
  std::optional<std::uint64_t> allocated_bytes{};  ///< of all its layers; none: not known
  std::string identity{};                          ///< of its storage, for comparison with a target's
  bool is_shared = false;                          ///< the target's host has the same storage
  bool is_shared_by_name = false;                  ///< and only its name says so
  std::vector<std::string> storages{};             ///< of its image and all layers; empty: not looked into
  std::string share_reason{};       ///< why it is shared, or what was tried to prove it; empty: nothing was
  std::string own_storage{};        ///< proved: it would be written to this storage of the machine itself
  std::string own_export{};         ///< of this gateway, that the machine has it from; empty: none
  std::string export_storage{};     ///< what that export is on
  bool is_in_place = false;         ///< which is where it is to go
  std::string not_reached_there{};  ///< why the other gateway does not reach where it goes; empty: it does
  unsigned backing_layers = 0;      ///< below the active one
  unsigned internal_snapshots = 0;  ///< in the image
  std::optional<TargetDiskFacts> target{};  ///< none: not asked, or `target_problem`
  std::optional<Error> target_problem{};    ///< why the target could not be looked at
};

/// A machine that is defined or runs at the target's host.
struct MachineThere {
  std::string name{};
  std::string uuid{};
  bool is_active = false;
};

enum class CpuFit : std::uint8_t {
  unknown,    ///< it could not be compared: `cpu_problem` says why
  fits,       ///< the host there can give it
  lacks,      ///< it cannot: `cpu_problem` says what is missing
  same_only,  ///< it is whatever its host has: only a host with the same CPU will do
};

/// Something that was asked and not answered.
struct UnknownFact {
  std::string subject{};  ///< "vda", "target", "cpu"
  Error error;
};

struct PreflightFacts {
  MoveRequest request{};
  VmDescription machine{};
  std::vector<DiskFacts> disks{};  ///< all of the machine's
  bool is_cold = false;            ///< it is to be moved while it is shut off
  bool goes_through = false;       ///< by way of storage of both hosts: see through_choice.hpp
  std::string running_job{};       ///< what the hypervisor does with the machine now; empty: nothing

  HostFacts source{};
  std::optional<HostFacts> target{};      ///< none: see `target_problem`
  std::optional<Error> target_problem{};  ///< why its hypervisor cannot be asked
  std::vector<MachineThere> machines_there{};
  CpuFit cpu = CpuFit::unknown;
  std::string cpu_problem{};
  bool has_emulator_there = false;  ///< QEMU is there under the name that the machine's definition has for it

  GatewayFacts here{};
  std::optional<GatewayFacts> there{};          ///< none: see `gateway_problem`
  std::optional<Error> gateway_problem{};       ///< why the gateway there cannot be asked
  std::string gateway_certificate_name{};       ///< whom its certificate names; empty: none was shown
  std::optional<std::int64_t> clock_skew_ms{};  ///< the gateway's clock there, less ours
  std::optional<std::uint64_t> round_trip_us{};
  /// The gateway there was asked to reach this one. None: it was not, or does not know the question.
  std::optional<GatewayFacts> seen_from_there{};
  std::optional<Error> way_back_problem{};  ///< why it cannot

  std::vector<UnknownFact> unknown{};
};

enum class Severity : std::uint8_t {
  blocker,  ///< the move is refused
  warning,  ///< it can be done; something may be lost, fail or surprise
  note,     ///< worth knowing
};
std::string_view to_string(Severity severity) noexcept;

/// Texts are whole sentences without secrets and safe to show.
struct Finding {
  Severity severity = Severity::note;
  std::string code{};     ///< stable: "target-exists"
  std::string subject{};  ///< what it is about: "vda", "cpu", "memory", "gateway", ...
  std::string text{};
  std::string remedy{};  ///< what to do about it; never empty for a blocker or a warning
};

/// Every finding, blockers first.
std::vector<Finding> examine(const PreflightFacts& facts);

bool has_blocker(const std::vector<Finding>& findings) noexcept;

/// What a network, bridge or host interface is called at the target's host.
std::string name_there(const MoveRequest& request, const std::string& network);
/// The format a disk is written in: the one that was asked for, else by the name's ending.
std::string format_there(const MoveDisk& disk);
/// How much of the storage that `disk` goes to becomes the disk, in bytes, where that storage is larger and
/// is used as it is; 0: all of it.
std::uint64_t slice_of_target(const PreflightFacts& facts, const DiskFacts& disk);
/// The machine type that the machine has at the target's host.
const std::string& machine_type_there(const PreflightFacts& facts) noexcept;
/// The machine's name at the target's host.
const std::string& machine_name_there(const PreflightFacts& facts) noexcept;

/// Whether a storage's identity says something to another host: names of this host (its sockets, its
/// loopback) and nothing at all do not. See storage_identity().
bool is_comparable(const std::string& identity, const std::string& uri);
/// Equal identities prove that the storage is the same. Those of block devices without a name that is theirs
/// alone do not: they tell of a size and of how the content begins, as a copy would.
bool is_proof(const std::string& identity) noexcept;

}  // namespace diskferry
