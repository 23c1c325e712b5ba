// Exports for disks of machines of this host, made by jobs and in no configuration: offered to the hypervisor
// alone, on a socket of their own. Implemented by the daemon.
#pragma once

#include "diskferry/image_uri.hpp"
#include "diskferry/task.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct EndpointRecord;

/// What is behind an export.
struct ExportStorage {
  std::string name{};  ///< of the export
  std::string uri{};
  std::string format{};
  std::vector<std::string> storages{};  ///< all that its content comes from, with backing images
  bool is_disk = false;                 ///< of a machine, and in no configuration
  bool is_settled = false;              ///< no job is changing it
};

class DiskExports {
 public:
  virtual ~DiskExports() = default;

  /// There is an export of this name, a configured one or not.
  virtual bool has_export(const std::string& name) const = 0;
  /// The export that a hypervisor here has under this name of its storage; empty: none of this gateway.
  virtual std::string export_at(const ImageUri& storage) const = 0;
  /// Of an export of any kind; nullopt: there is none of this name.
  virtual std::optional<ExportStorage> storage_of(const std::string& name) const = 0;
  /// Those that are open, of jobs that have ended and of others.
  virtual std::vector<std::string> disk_names() const = 0;
  /// Where the hypervisor finds them.
  virtual const std::string& disk_socket() const noexcept = 0;
  /// Opens what the record names, writable, and lets the hypervisor in. It is there again after a restart
  /// where the job store has the record (JobChanges::endpoints). Errors: already_exists, those of opening and
  /// listening.
  virtual Task<Result<void>> offer_disk(EndpointRecord record) = 0;
  /// From now on each write of such a disk is durable before it is acknowledged, and so is all that was
  /// written before, when this has completed; or not any more. What the hypervisor was told is then there
  /// after the gateway was killed. Errors: not_found, those of flush.
  virtual Task<Result<void>> write_through(std::string name, bool is_on) = 0;
  /// Cuts the hypervisor off and closes the image. Errors: not_found, in_use, those of flush and close.
  virtual Task<Result<void>> withdraw_disk(std::string name) = 0;
};

/// Where the image of such a disk is; empty: there is none of this name, or a job is changing it.
inline std::string disk_storage(const DiskExports& exports, const std::string& name) {
  const auto found = exports.storage_of(name);
  return found && found->is_disk && found->is_settled ? found->uri : std::string();
}

}  // namespace diskferry
