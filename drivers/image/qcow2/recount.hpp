// Counts anew how often every host cluster is referred to: for an image with the dirty bit, whose last writer
// kept lazy refcounts and did not get to closing it. Its other tables are right, the refcounts may be
// anything. Called by Writer when it opens an image; only reads. docs/qcow2-writing.md says why that is safe.
#pragma once

#include "drivers/image/qcow2/image_state.hpp"
#include "drivers/image/qcow2/metadata_map.hpp"

#include <unordered_map>
#include <vector>

namespace diskferry::qcow2 {

/// Lifetime: less than the image's.
class Recount {
 public:
  /// Memory for the counts, as wide as the image's refcounts: 8 TiB of storage at clusters of 64 KiB.
  static constexpr std::uint64_t counts_bytes_max = 256 * mib;

  /// L2 tables of the disk and all snapshots: as many as the largest L1 table names.
  static constexpr std::size_t l2_tables_max = l1_bytes_max / 8;

  /// `metadata`: the header and the tables of the active disk, which do not overlap.
  Recount(ImageState& image, const MetadataMap& metadata) : image_(image), metadata_(metadata) {}

  /// Walks all tables. `refcount_table`: in host order. Errors: corrupt (tables and data overlap, lie outside
  /// the file, or have entries that cannot be believed: more is wrong than the refcounts); too_large; as
  /// BlockDevice::read.
  Task<Result<void>> count(std::span<const std::uint64_t> refcount_table);

  std::uint64_t clusters() const noexcept { return clusters_; }
  /// Precondition: cluster < clusters().
  std::uint64_t of(std::uint64_t cluster) const noexcept {
    return load_refcount(counts_, cluster, image_.geometry.refcount_order);
  }
  /// A cluster that nothing refers to, at the end of the storage if need be; counts as taken from now on.
  std::uint64_t take_free();

 private:
  Result<void> add(Range host, std::uint64_t references, std::string_view what);
  Task<Result<void>> add_l1(std::uint64_t l1_offset, std::size_t entries, bool is_active);
  Task<Result<void>> add_l2(std::uint64_t l2_offset, std::uint64_t references);
  Task<Result<void>> add_snapshots();
  Task<Result<void>> add_bitmaps();
  Error refused(std::string why) const;

  ImageState& image_;
  const MetadataMap& metadata_;
  std::vector<std::byte> counts_;
  std::uint64_t clusters_ = 0;
  std::uint64_t search_from_ = 1;
  std::unordered_map<std::uint64_t, std::uint64_t> l2_tables_;  // offset: L1 entries that name it
};

}  // namespace diskferry::qcow2
