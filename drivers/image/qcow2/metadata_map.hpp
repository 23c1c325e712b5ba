// Which host clusters hold metadata: nothing may be allocated there, and no guest data written, whatever the
// tables of a damaged or hostile image say. Asked before every write of guest data.
#pragma once

#include "diskferry/extent.hpp"

#include <cstdint>
#include <mutex>
#include <unordered_set>

namespace diskferry::qcow2 {

/// Thread: any.
class MetadataMap {
 public:
  explicit MetadataMap(unsigned cluster_bits) : cluster_bits_(cluster_bits) {}

  /// False when part of it was known as metadata already: two tables overlap.
  bool add(Range host) {
    std::lock_guard lock(guard_);
    bool is_new = true;
    for (std::uint64_t at = host.offset >> cluster_bits_;
         host.length != 0 && at <= (host.end() - 1) >> cluster_bits_; ++at)
      is_new &= clusters_.insert(at).second;
    return is_new;
  }
  void remove(Range host) {
    std::lock_guard lock(guard_);
    for (std::uint64_t at = host.offset >> cluster_bits_;
         host.length != 0 && at <= (host.end() - 1) >> cluster_bits_; ++at)
      clusters_.erase(at);
  }
  bool overlaps(Range host) const {
    std::lock_guard lock(guard_);
    for (std::uint64_t at = host.offset >> cluster_bits_;
         host.length != 0 && at <= (host.end() - 1) >> cluster_bits_; ++at) {
      if (clusters_.contains(at)) return true;
    }
    return false;
  }

 private:
  const unsigned cluster_bits_;
  mutable std::mutex guard_;
  std::unordered_set<std::uint64_t> clusters_;
};

}  // namespace diskferry::qcow2
