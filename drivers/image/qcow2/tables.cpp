// Encoding and decoding of table entries. Pure.
#include "drivers/image/qcow2/tables.hpp"

namespace diskferry::qcow2 {

std::string_view to_string(EntryProblem problem) noexcept {
  switch (problem) {
    case EntryProblem::none:
      return "fine";
    case EntryProblem::reserved_bits:
      return "has reserved bits set";
    case EntryProblem::unaligned:
      return "does not point to the start of a cluster";
    case EntryProblem::zero_in_v2:
      return "is a zero cluster, which version 2 does not have";
    case EntryProblem::both_bits:
      return "says of a subcluster that it is allocated and zero";
    case EntryProblem::no_cluster:
      return "has allocated subclusters, but no cluster";
    case EntryProblem::compressed_in_data_file:
      return "is compressed, but the image has an external data file";
  }
  return "is invalid";
}

L1Entry decode_l1(std::uint64_t raw, const Geometry& geometry) noexcept {
  L1Entry entry{.l2_offset = raw & offset_mask, .is_copied = (raw & flag_copied) != 0};
  if ((raw & l1_reserved_mask) != 0) {
    entry.problem = EntryProblem::reserved_bits;
  } else if (!is_aligned(entry.l2_offset, geometry.cluster_bytes())) {
    entry.problem = EntryProblem::unaligned;
  }
  return entry;
}

CompressedCluster decode_compressed(std::uint64_t raw, unsigned cluster_bits) noexcept {
  const unsigned offset_bits = compressed_offset_bits(cluster_bits);
  const std::uint64_t descriptor = raw & ~(flag_copied | flag_compressed);
  const std::uint64_t host_offset = descriptor & ((std::uint64_t{1} << offset_bits) - 1);
  const std::uint64_t sectors = (descriptor >> offset_bits) + 1;
  return {.host_offset = host_offset, .bytes = sectors * sector_bytes - host_offset % sector_bytes};
}

std::uint64_t encode_compressed(CompressedCluster cluster, unsigned cluster_bits) noexcept {
  const std::uint64_t further_sectors =
      (cluster.host_offset + cluster.bytes - 1) / sector_bytes - cluster.host_offset / sector_bytes;
  return flag_compressed | further_sectors << compressed_offset_bits(cluster_bits) | cluster.host_offset;
}

namespace {
L2Entry broken(EntryProblem problem) noexcept {
  L2Entry entry;
  entry.problem = problem;
  return entry;
}

L2Entry decode_compressed_entry(std::uint64_t raw, const EntryRules& rules) noexcept {
  if (rules.has_data_file) return broken(EntryProblem::compressed_in_data_file);
  L2Entry entry;
  entry.kind = ClusterKind::compressed;
  entry.compressed = decode_compressed(raw, rules.geometry.cluster_bits);
  return entry;
}

void decode_subclusters(L2Entry& entry, std::uint64_t bitmap) noexcept {
  entry.allocated_bits = static_cast<std::uint32_t>(bitmap);
  entry.zero_bits = static_cast<std::uint32_t>(bitmap >> 32);
  if ((entry.allocated_bits & entry.zero_bits) != 0) {
    entry.problem = EntryProblem::both_bits;
  } else if (entry.allocated_bits != 0 && !entry.has_host_cluster) {
    entry.problem = EntryProblem::no_cluster;
  } else if (entry.allocated_bits == UINT32_MAX) {
    entry.kind = ClusterKind::data;
  } else if (entry.zero_bits == UINT32_MAX) {
    entry.kind = entry.has_host_cluster ? ClusterKind::zero_allocated : ClusterKind::zero;
  } else if (entry.allocated_bits == 0 && entry.zero_bits == 0) {
    entry.kind = ClusterKind::unallocated;
  } else {
    entry.kind = ClusterKind::subclusters;
  }
}
}  // namespace

L2Entry decode_l2(std::uint64_t raw, std::uint64_t bitmap, const EntryRules& rules) noexcept {
  if ((raw & flag_compressed) != 0) return decode_compressed_entry(raw, rules);
  const bool extended = rules.geometry.extended_l2;
  if ((raw & (l2_reserved_mask | (extended ? flag_zero : 0))) != 0)
    return broken(EntryProblem::reserved_bits);
  L2Entry entry;
  entry.is_copied = (raw & flag_copied) != 0;
  entry.host_offset = raw & offset_mask;
  // Offset 0 is a place only in a data file, where "referenced once" tells it from "unallocated".
  entry.has_host_cluster = entry.host_offset != 0 || (rules.has_data_file && entry.is_copied);
  if (!is_aligned(entry.host_offset, rules.geometry.cluster_bytes())) return broken(EntryProblem::unaligned);
  if (extended) {
    decode_subclusters(entry, bitmap);
    return entry;
  }
  if ((raw & flag_zero) != 0) {
    if (rules.version < 3) return broken(EntryProblem::zero_in_v2);
    entry.kind = entry.has_host_cluster ? ClusterKind::zero_allocated : ClusterKind::zero;
  } else if (entry.has_host_cluster) {
    entry.kind = ClusterKind::data;
  }
  return entry;
}

ClusterKind subcluster_kind(const L2Entry& entry, unsigned index) noexcept {
  if (entry.kind != ClusterKind::subclusters) return entry.kind;
  const std::uint32_t bit = 1u << index;
  if ((entry.allocated_bits & bit) != 0) return ClusterKind::data;
  if ((entry.zero_bits & bit) != 0)
    return entry.has_host_cluster ? ClusterKind::zero_allocated : ClusterKind::zero;
  return ClusterKind::unallocated;
}

L2Words encode_l2(const L2Entry& entry, const EntryRules& rules) noexcept {
  if (entry.kind == ClusterKind::compressed)
    return {.entry = encode_compressed(entry.compressed, rules.geometry.cluster_bits)};
  L2Words words;
  if (entry.has_host_cluster) words.entry = entry.host_offset | (entry.is_copied ? flag_copied : 0);
  const bool is_zero = entry.kind == ClusterKind::zero || entry.kind == ClusterKind::zero_allocated;
  if (!rules.geometry.extended_l2) {
    if (is_zero) words.entry |= flag_zero;
    return words;
  }
  std::uint32_t allocated = entry.kind == ClusterKind::data ? UINT32_MAX : 0;
  std::uint32_t zero = is_zero ? UINT32_MAX : 0;
  if (entry.kind == ClusterKind::subclusters) {
    allocated = entry.allocated_bits;
    zero = entry.zero_bits;
  }
  words.bitmap = std::uint64_t{zero} << 32 | allocated;
  return words;
}

std::optional<std::uint64_t> decode_refcount_table_entry(std::uint64_t raw,
                                                         const Geometry& geometry) noexcept {
  if ((raw & refcount_table_reserved_mask) != 0 || !is_aligned(raw, geometry.cluster_bytes()) ||
      raw > host_offset_max)
    return std::nullopt;
  return raw;
}

std::uint64_t load_refcount(std::span<const std::byte> block, std::uint64_t index,
                            unsigned refcount_order) noexcept {
  switch (refcount_order) {
    case 3:
      return std::to_integer<std::uint64_t>(block[index]);
    case 4:
      return load_big<std::uint16_t>(block.data() + index * 2);
    case 5:
      return load_big<std::uint32_t>(block.data() + index * 4);
    case 6:
      return load_big<std::uint64_t>(block.data() + index * 8);
    default:
      break;
  }
  // Widths below a byte: the first refcount is in the least significant bits.
  const unsigned bits = 1u << refcount_order;
  const unsigned per_byte = 8 / bits;
  const auto byte = std::to_integer<unsigned>(block[index / per_byte]);
  return byte >> (index % per_byte * bits) & ((1u << bits) - 1);
}

void store_refcount(std::span<std::byte> block, std::uint64_t index, unsigned refcount_order,
                    std::uint64_t value) noexcept {
  switch (refcount_order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      store_big(block.data() + index * 2, static_cast<std::uint16_t>(value));
      return;
    case 5:
      store_big(block.data() + index * 4, static_cast<std::uint32_t>(value));
      return;
    case 6:
      store_big(block.data() + index * 8, value);
      return;
    default:
      break;
  }
  const unsigned bits = 1u << refcount_order;
  const unsigned per_byte = 8 / bits;
  const auto shift = static_cast<unsigned>(index % per_byte * bits);
  const unsigned mask = ((1u << bits) - 1) << shift;
  auto byte = std::to_integer<unsigned>(block[index / per_byte]);
  byte = (byte & ~mask) | (static_cast<unsigned>(value) << shift & mask);
  block[index / per_byte] = static_cast<std::byte>(byte);
}

}  // namespace diskferry::qcow2
