// Where the hypervisor moves a machine's disk to, as its job sees it: an export of this gateway, made for it,
// or storage that QEMU opens itself. What differs between the two is here, all else in adoption.hpp.
#pragma once

#include "gateway/move/domain_disk.hpp"
#include "gateway/move/persistence.hpp"
#include "gateway/move/replace_record.hpp"

#include <memory>

namespace diskferry {

/// Thread: that of its job.
class DiskDestination {
 public:
  virtual ~DiskDestination() = default;

  /// Lets the hypervisor write to it. Once it does so this does nothing. Errors: those of the storage.
  virtual Task<Result<void>> offer() = 0;
  /// From now on what the hypervisor was told is written stays so when this process is killed. Right before
  /// it is written down that the disk may be there. Errors: those of the storage.
  virtual Task<Result<void>> make_lasting() = 0;
  /// Right before the hypervisor goes over. Errors: those of libvirt and QEMU.
  virtual Task<Result<void>> before_pivot() = 0;
  /// What is written down in the commit, in one with it.
  virtual JobChanges commit_record() const = 0;
  /// After that; also where an earlier process may have done it. What failed is noted in the job's state.
  virtual Task<void> settle_in() = 0;
  /// The disk does not come. Errors: those of letting go of the storage.
  virtual Task<Result<void>> withdraw() = 0;
};

/// A libvirt that is restarted, or one that QEMU keeps waiting for a gateway that was away, answers by then.
inline constexpr Patience hypervisor_patience{.limit = std::chrono::seconds(60),
                                              .pause = std::chrono::seconds(1)};

struct DiskDestinationParts {
  ReplaceEnvironment& environment;
  ReplaceRecord& record;
  DomainDisk& disk;
};
/// By the record's request.
std::unique_ptr<DiskDestination> make_destination(DiskDestinationParts parts);

}  // namespace diskferry
