// What speaks against having the hypervisor move a machine's disk, found before anything is changed. Pure.
#pragma once

#include "gateway/hypervisor/virtual_machine.hpp"
#include "gateway/move/disk_exports.hpp"
#include "gateway/move/preflight.hpp"
#include "gateway/move/replace_request.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct AdoptionFacts {
  ReplaceRequest request{};
  VmDescription machine{};
  std::string disk{};                        ///< "vda"
  std::optional<ExportStorage> on_export{};  ///< the export of this gateway that the disk is on
  bool has_disk_job = false;                 ///< libvirt has a job with it
  bool is_in_job = false;                    ///< libvirt migrates, saves or dumps the machine
  std::uint64_t libvirt_version = 0;
};

/// Every finding, blockers first.
std::vector<Finding> examine(const AdoptionFacts& facts);

/// The first blocker. Errors: unsupported.
Result<void> refuse_adoption(const std::vector<Finding>& findings, const std::string& name);

}  // namespace diskferry
