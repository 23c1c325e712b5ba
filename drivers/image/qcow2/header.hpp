// The qcow2 header: parsing, checking and writing back, without I/O. Reader, writer and image creation share
// this struct. What a header says is hostile: everything that later code relies on is checked here.
// Source: the qcow2 specification ("docs/interop/qcow2", versions 2 and 3), sections "Header" and "Header
// extensions".
#pragma once

#include "diskferry/error.hpp"
#include "diskferry/extent.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::qcow2 {

inline constexpr std::uint32_t magic = 0x514649fb;  // "QFI\xfb"

// Limits. Those of the specification are marked; the others are the ones QEMU has, so that every image it
// opens is opened here, and no image makes us read or hold more than that.
inline constexpr unsigned cluster_bits_min = 9;                                    // specification
inline constexpr unsigned cluster_bits_max = 21;                                   // QEMU: 2 MiB
inline constexpr unsigned refcount_order_max = 6;                                  // specification
inline constexpr std::size_t backing_name_max = 1023;                              // specification
inline constexpr std::uint64_t l1_bytes_max = std::uint64_t{32} << 20;             // QEMU
inline constexpr std::uint64_t refcount_table_bytes_max = std::uint64_t{8} << 20;  // QEMU
inline constexpr std::uint32_t snapshots_max = 65536;                              // QEMU
inline constexpr std::uint32_t bitmaps_max = 65535;                                // QEMU
inline constexpr std::uint64_t bitmap_directory_bytes_max = std::uint64_t{1024} * bitmaps_max;  // QEMU
/// Entries point with 56 bits at most; no offset in a table can be larger.
inline constexpr std::uint64_t host_offset_max = std::uint64_t{1} << 56;

namespace incompatible {
inline constexpr std::uint64_t dirty = 1u << 0;        ///< refcounts may be wrong
inline constexpr std::uint64_t corrupt = 1u << 1;      ///< must not be written
inline constexpr std::uint64_t data_file = 1u << 2;    ///< guest data lie in another file
inline constexpr std::uint64_t compression = 1u << 3;  ///< compression_type is not zlib
inline constexpr std::uint64_t extended_l2 = 1u << 4;  ///< L2 entries of 16 bytes with subclusters
inline constexpr std::uint64_t known = 0x1f;
}  // namespace incompatible
namespace compatible {
inline constexpr std::uint64_t lazy_refcounts = 1u << 0;
}
namespace autoclear {
inline constexpr std::uint64_t bitmaps = 1u << 0;        ///< the bitmaps extension is consistent
inline constexpr std::uint64_t data_file_raw = 1u << 1;  ///< the data file is a raw image by itself
inline constexpr std::uint64_t known = 0x3;
}  // namespace autoclear
namespace extension {
inline constexpr std::uint32_t end = 0;
inline constexpr std::uint32_t backing_format = 0xe2792aca;
inline constexpr std::uint32_t feature_names = 0x6803f857;
inline constexpr std::uint32_t bitmaps = 0x23852875;
inline constexpr std::uint32_t encryption = 0x0537be77;
inline constexpr std::uint32_t data_file = 0x44415441;
}  // namespace extension

enum class CompressionType : std::uint8_t { zlib = 0, zstd = 1 };

enum class FeatureGroup : std::uint8_t { incompatible = 0, compatible = 1, autoclear = 2 };
struct FeatureName {
  FeatureGroup group = FeatureGroup::incompatible;
  std::uint8_t bit = 0;
  std::string name;
  bool operator==(const FeatureName&) const = default;
};

/// The "bitmaps" extension.
struct BitmapsExtension {
  std::uint32_t count = 0;
  std::uint64_t directory_bytes = 0;
  std::uint64_t directory_offset = 0;
  bool operator==(const BitmapsExtension&) const = default;
};

/// A header extension as it lies in the file, without padding.
struct HeaderExtension {
  std::uint32_t type = 0;
  std::vector<std::byte> data;
  bool operator==(const HeaderExtension&) const = default;
};

struct Header {
  std::uint32_t version = 3;  ///< 2 or 3
  unsigned cluster_bits = 16;
  std::uint64_t size_bytes = 0;  ///< of the guest's disk; need not be a multiple of anything
  std::uint32_t crypt_method = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t l1_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t snapshot_count = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible_features = 0;
  std::uint64_t compatible_features = 0;
  std::uint64_t autoclear_features = 0;
  unsigned refcount_order = 4;  ///< refcounts are 2^order bits wide
  CompressionType compression_type = CompressionType::zlib;
  std::string backing_name;  ///< empty: no backing image
  /// Header fields after byte 104 that this program knows nothing of (also the padding after
  /// compression_type), kept for writing back. Byte 0 is compression_type's own.
  std::vector<std::byte> further_fields;

  // Decoded extensions. serialize_header() writes these values, not the copies in `extensions`.
  std::optional<std::string> backing_format;
  std::optional<std::string> data_file;
  std::optional<BitmapsExtension> bitmaps;
  std::vector<FeatureName> feature_names;
  /// All extensions in file order, known ones too; unknown ones are written back byte for byte.
  std::vector<HeaderExtension> extensions;

  std::uint64_t cluster_bytes() const noexcept { return std::uint64_t{1} << cluster_bits; }
  unsigned refcount_bits() const noexcept { return 1u << refcount_order; }
  std::uint32_t header_bytes() const noexcept {
    return version == 2 ? 72 : 104 + static_cast<std::uint32_t>(further_fields.size());
  }
  bool is_dirty() const noexcept { return (incompatible_features & incompatible::dirty) != 0; }
  bool is_corrupt() const noexcept { return (incompatible_features & incompatible::corrupt) != 0; }
  bool has_data_file() const noexcept { return (incompatible_features & incompatible::data_file) != 0; }
  bool has_raw_data_file() const noexcept { return (autoclear_features & autoclear::data_file_raw) != 0; }
  bool has_extended_l2() const noexcept { return (incompatible_features & incompatible::extended_l2) != 0; }
};

/// True when the bytes start like a qcow2 image, version 2 or later.
bool has_magic(std::span<const std::byte> start) noexcept;

/// How much of the file parse_header() needs: the first cluster.
/// `start`: at least 24 bytes of the file. Errors: unsupported (version), corrupt (cluster size).
Result<std::uint64_t> header_area_bytes(std::span<const std::byte> start, std::string_view name);

/// Parses and checks a header. `area`: the first cluster, or the whole file where it is shorter.
/// `name` is for messages. After success: sizes and offsets are within the limits above, tables aligned,
/// the L1 table large enough for size_bytes, and no feature set that this program does not know.
/// Errors: corrupt; too_large (a limit); unsupported (feature by its name, encryption by its name).
Result<Header> parse_header(std::span<const std::byte> area, std::string_view name);

/// Checks that the tables a header names lie inside a storage of `storage_bytes` and do not cover the header
/// or one another. Errors: corrupt, with the position.
Result<void> check_tables_inside(const Header& header, std::uint64_t storage_bytes, std::string_view name);

/// The header area as it is to be written: header, extensions, backing name; at most one cluster.
/// Errors: too_large when it does not fit into the first cluster.
Result<std::vector<std::byte>> serialize_header(const Header& header);

/// The feature-name table that new images carry.
std::vector<FeatureName> known_feature_names();
/// "extended L2 entries", or "incompatible feature bit 17" where nobody knows a name. The image's own table
/// is asked first for unknown bits.
std::string feature_name(const Header& header, FeatureGroup group, unsigned bit);

}  // namespace diskferry::qcow2
