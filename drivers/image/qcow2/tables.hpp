// The entries of qcow2's tables and where they are: pure arithmetic, shared by reader and writer. Decoding
// never fails by assertion; an entry that contradicts the specification carries a problem that the caller
// turns into an error with the position.
// Source: the qcow2 specification, "Cluster mapping", "Extended L2 entries", "Host cluster management".
#pragma once

#include "diskferry/units.hpp"
#include "drivers/image/qcow2/header.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace diskferry::qcow2 {

inline constexpr unsigned extended_l2_cluster_bits_min = 14;  // QEMU: subclusters of 512 bytes at least
inline constexpr unsigned subclusters = 32;
inline constexpr unsigned sector_bytes = 512;

inline constexpr std::uint64_t flag_copied = std::uint64_t{1} << 63;      ///< refcount is exactly one
inline constexpr std::uint64_t flag_compressed = std::uint64_t{1} << 62;  ///< L2 only
inline constexpr std::uint64_t flag_zero = 1;                             ///< L2 standard entries, version 3
inline constexpr std::uint64_t offset_mask = 0x00fffffffffffe00;          ///< bits 9 to 55
inline constexpr std::uint64_t l1_reserved_mask = 0x7f000000000001ff;
inline constexpr std::uint64_t l2_reserved_mask = 0x3f000000000001fe;
inline constexpr std::uint64_t refcount_table_reserved_mask = 0x1ff;

/// Offsets of a guest address in the tables, and table sizes. All sizes in bytes.
struct Geometry {
  unsigned cluster_bits = 16;
  bool extended_l2 = false;
  unsigned refcount_order = 4;

  Geometry() = default;
  explicit Geometry(const Header& header)
      : cluster_bits(header.cluster_bits),
        extended_l2(header.has_extended_l2()),
        refcount_order(header.refcount_order) {}

  std::uint64_t cluster_bytes() const noexcept { return std::uint64_t{1} << cluster_bits; }
  std::uint64_t in_cluster(std::uint64_t offset) const noexcept { return offset & (cluster_bytes() - 1); }
  std::uint64_t cluster_start(std::uint64_t offset) const noexcept {
    return align_down(offset, cluster_bytes());
  }

  unsigned l2_entry_bytes() const noexcept { return extended_l2 ? 16 : 8; }
  /// log2 of the entries in one L2 table, which fills a cluster.
  unsigned l2_bits() const noexcept { return cluster_bits - (extended_l2 ? 4 : 3); }
  std::uint64_t l2_entries() const noexcept { return std::uint64_t{1} << l2_bits(); }
  /// How much of the disk one L1 entry (one L2 table) describes; at most 2^39.
  std::uint64_t l1_entry_covers_bytes() const noexcept {
    return std::uint64_t{1} << (cluster_bits + l2_bits());
  }
  std::uint64_t l1_index(std::uint64_t offset) const noexcept { return offset >> (cluster_bits + l2_bits()); }
  std::uint64_t l2_index(std::uint64_t offset) const noexcept {
    return (offset >> cluster_bits) & (l2_entries() - 1);
  }
  std::uint64_t l1_entries_needed(std::uint64_t size_bytes) const noexcept {
    return divide_up(size_bytes, l1_entry_covers_bytes());
  }

  std::uint64_t subcluster_bytes() const noexcept { return cluster_bytes() / subclusters; }
  unsigned subcluster_index(std::uint64_t offset) const noexcept {
    return static_cast<unsigned>(in_cluster(offset) >> (cluster_bits - 5));
  }

  /// Refcounts in one refcount block, which fills a cluster.
  std::uint64_t refcounts_per_block() const noexcept {
    return std::uint64_t{1} << (cluster_bits + 3 - refcount_order);
  }
  /// Index into the refcount table, and into the block it names, of a host offset.
  std::uint64_t refcount_table_index(std::uint64_t host_offset) const noexcept {
    return (host_offset >> cluster_bits) / refcounts_per_block();
  }
  std::uint64_t refcount_block_index(std::uint64_t host_offset) const noexcept {
    return (host_offset >> cluster_bits) & (refcounts_per_block() - 1);
  }
};

/// Why an entry cannot be believed.
enum class EntryProblem : std::uint8_t {
  none,
  reserved_bits,  ///< bits are set that must be zero
  unaligned,      ///< does not point to the start of a cluster
  zero_in_v2,     ///< a zero cluster in a version 2 image, which has none
  both_bits,      ///< a subcluster is allocated and zero at once
  no_cluster,     ///< a subcluster is allocated, but the cluster is not
  compressed_in_data_file
};
std::string_view to_string(EntryProblem problem) noexcept;

struct L1Entry {
  std::uint64_t l2_offset = 0;  ///< 0: no L2 table, everything it would describe is unallocated
  bool is_copied = false;
  EntryProblem problem = EntryProblem::none;
};
L1Entry decode_l1(std::uint64_t raw, const Geometry& geometry) noexcept;
constexpr std::uint64_t encode_l1(std::uint64_t l2_offset, bool is_copied) noexcept {
  return l2_offset | (is_copied ? flag_copied : 0);
}

/// Where the data of a compressed cluster may lie. `bytes` is an upper bound, in whole sectors of the storage
/// (less the part of the first sector before `host_offset`); the data may end earlier, the last sector may
/// be shared with another cluster, and may run past the end of the file.
struct CompressedCluster {
  std::uint64_t host_offset = 0;
  std::uint64_t bytes = 0;
  bool operator==(const CompressedCluster&) const = default;
};
/// log2 of the sector count's place in the descriptor (the specification's x).
constexpr unsigned compressed_offset_bits(unsigned cluster_bits) noexcept {
  return 62 - (cluster_bits - 8);
}
CompressedCluster decode_compressed(std::uint64_t raw, unsigned cluster_bits) noexcept;
/// Precondition: bytes > 0; host_offset and the number of sectors fit (see compressed_offset_bits).
std::uint64_t encode_compressed(CompressedCluster cluster, unsigned cluster_bits) noexcept;

enum class ClusterKind : std::uint8_t {
  unallocated,     ///< reads what the backing image has, or zeros
  zero,            ///< reads zeros; nothing allocated
  zero_allocated,  ///< reads zeros; host_offset is reserved for it
  data,
  compressed,
  subclusters,  ///< extended L2, and not all subclusters agree: see subcluster_kind()
};

struct L2Entry {
  ClusterKind kind = ClusterKind::unallocated;
  EntryProblem problem = EntryProblem::none;
  bool is_copied = false;
  /// Cluster address in the storage (or data file). Meaningful for zero_allocated, data, and where
  /// has_host_cluster; an unallocated extended entry may own a cluster too.
  std::uint64_t host_offset = 0;
  bool has_host_cluster = false;
  CompressedCluster compressed{};
  std::uint32_t allocated_bits = 0;  ///< extended L2: subcluster i has data in the cluster
  std::uint32_t zero_bits = 0;       ///< extended L2: subcluster i reads zeros
};

/// What may be in an image, for decoding.
struct EntryRules {
  Geometry geometry;
  std::uint32_t version = 3;
  bool has_data_file = false;

  EntryRules() = default;
  explicit EntryRules(const Header& header)
      : geometry(header), version(header.version), has_data_file(header.has_data_file()) {}
};

/// `bitmap`: the second word of an extended entry; ignored for standard ones. When `problem` is set, nothing
/// else of the result means anything.
L2Entry decode_l2(std::uint64_t raw, std::uint64_t bitmap, const EntryRules& rules) noexcept;

/// unallocated, zero, zero_allocated or data: what subcluster `index` (0..31) is. For any entry but
/// compressed.
ClusterKind subcluster_kind(const L2Entry& entry, unsigned index) noexcept;

/// Both words of an L2 entry, host order. `bitmap` is 0 for standard entries.
struct L2Words {
  std::uint64_t entry = 0;
  std::uint64_t bitmap = 0;
};
/// An entry of the kinds unallocated, zero, zero_allocated, data, subclusters (with the bits of `entry`) or
/// compressed, as it lies in a table.
L2Words encode_l2(const L2Entry& entry, const EntryRules& rules) noexcept;

/// Host offset of a refcount block; 0: none, all its refcounts are zero. nullopt: reserved bits set or not
/// aligned.
std::optional<std::uint64_t> decode_refcount_table_entry(std::uint64_t raw,
                                                         const Geometry& geometry) noexcept;

/// A refcount in a block, of 1 to 64 bits. `index` < refcounts_per_block().
std::uint64_t load_refcount(std::span<const std::byte> block, std::uint64_t index,
                            unsigned refcount_order) noexcept;
/// Precondition: `value` <= refcount_max(order).
void store_refcount(std::span<std::byte> block, std::uint64_t index, unsigned refcount_order,
                    std::uint64_t value) noexcept;
constexpr std::uint64_t refcount_max(unsigned refcount_order) noexcept {
  return refcount_order == 6 ? UINT64_MAX : (std::uint64_t{1} << (1u << refcount_order)) - 1;
}

}  // namespace diskferry::qcow2
