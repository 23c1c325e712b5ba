// Storage that stays as its writer left it while this process lives, whatever becomes of its server's cache.
#pragma once

#include "diskferry/driver.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace diskferry {

/// So much of what is acknowledged and not flushed is kept in memory, for each storage; then it is flushed.
inline constexpr std::uint64_t kept_bytes_max = std::uint64_t{16} << 20;

struct KeepOptions {
  std::shared_ptr<const std::atomic<bool>> is_on{};  ///< null: always
  /// Told when it is open again, and how much it was given once more. Thread: any.
  std::function<void(const std::string& storage, std::uint64_t bytes)> on_reopened{};
};

/// open_storage(), and where the server may lose what it has acknowledged, while `is_on`, what is not flushed
/// is kept, and given to the same storage once more when it was lost (drivers/filters/retry). That it is the
/// same is told by what identifies the volume, where the storage has such a thing.
Task<Result<DevicePtr>> open_kept_storage(DriverContext& context, ImageUri uri, OpenOptions options,
                                          KeepOptions keep);

}  // namespace diskferry
