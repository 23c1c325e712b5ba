// Where compressed clusters go in host clusters that they share: pure arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace diskferry::qcow2 {

struct Packing {
  std::vector<std::uint64_t>
      offsets;  ///< of each compressed cluster, from the start of the first host cluster
  std::vector<std::uint64_t>
      references;         ///< that each host cluster gains, the first one first; none is zero but the first
  std::uint64_t end = 0;  ///< behind the last
};
/// Where the first host cluster stands.
struct PackingStart {
  std::uint64_t start = 0;
  std::uint64_t references = 0;
};
struct PackingLimits {
  std::uint64_t cluster_bytes = 0;
  std::uint64_t references_max = 0;
};

/// Packs one behind the other; a host cluster that cannot take another reference is left for the next.
inline Packing pack(std::span<const std::size_t> sizes, PackingStart from, PackingLimits limits) {
  Packing packing;
  packing.references.push_back(0);
  std::uint64_t at = from.start;
  const auto references = [&](std::uint64_t cluster) {
    const std::uint64_t gained = cluster < packing.references.size() ? packing.references[cluster] : 0;
    return gained + (cluster == 0 ? from.references : 0);
  };
  for (const std::size_t size : sizes) {
    std::uint64_t cluster = at / limits.cluster_bytes;
    if (at % limits.cluster_bytes != 0 && references(cluster) >= limits.references_max) {
      ++cluster;
      at = cluster * limits.cluster_bytes;
    }
    const std::uint64_t last = (at + size - 1) / limits.cluster_bytes;
    packing.offsets.push_back(at);
    packing.references.resize(last + 1);
    for (std::uint64_t i = cluster; i <= last; ++i) ++packing.references[i];
    at += size;
  }
  packing.end = at;
  return packing;
}

}  // namespace diskferry::qcow2
