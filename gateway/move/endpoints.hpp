// Exports as a replacement sees them: names that clients hold on to, with a device behind each that may
// change. Implemented by the daemon.
#pragma once

#include "diskferry/block_device.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace diskferry {

/// For KeepOptions::on_reopened: says in the log that the storage of this export was lost and is back.
std::function<void(const std::string& storage, std::uint64_t bytes)> log_of_reopened(const std::string& name);

class Endpoints {
 public:
  virtual ~Endpoints() = default;

  struct Lent {
    std::shared_ptr<BlockDevice> device{};  ///< what clients use now; behind checked(), in single bytes
    std::string uri{};                      ///< where it is
    std::string format{};
    std::string configured{};             ///< as the configuration names it
    std::vector<std::string> storages{};  ///< all that its content comes from, with backing images
    /// Whether the device is the one that writers rely on (KeepOptions::is_on); null: it is
    /// not asked.
    std::shared_ptr<std::atomic<bool>> keeps_unflushed{};
  };
  /// Until give_back() nobody else removes the export, lends it or closes its device. Errors: not_found,
  /// in_use, read_only, unsupported (it would not be there again after a restart).
  virtual Result<Lent> borrow(const std::string& name) = 0;
  /// New requests go to `device`; returns when the last one that used the device before has ended. Errors:
  /// mismatch (it can do less than clients were promised; nothing was changed).
  virtual Task<Result<void>> put(std::string name, std::shared_ptr<BlockDevice> device) = 0;
  /// The export is `lent` from now on, which it closes at its end. Its device is the one that was put.
  virtual void give_back(const std::string& name, Lent lent) = 0;
};

}  // namespace diskferry
