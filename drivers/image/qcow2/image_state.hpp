// What is known of one open qcow2 image: its header, its storage, its tables in memory. The ground that
// reading (read.cpp, map.cpp) and writing (write.cpp and what it uses) share; there is one per image,
// however many connections use it.
#pragma once

#include "diskferry/buffer.hpp"
#include "diskferry/driver.hpp"
#include "drivers/image/qcow2/header.hpp"
#include "drivers/image/qcow2/metadata_cache.hpp"
#include "drivers/image/qcow2/readers.hpp"
#include "drivers/image/qcow2/tables.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::qcow2 {

/// A cluster after inflating, for requests that want a part of it.
using InflatedCluster = std::vector<std::byte>;

/// Which disk of the image is opened: the active one, or that of an internal snapshot.
struct DiskView {
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t size_bytes = 0;
};

struct ImageState {
  /// Inflated clusters kept: it bounds what 4 KiB reads of 2 MiB clusters cost.
  static constexpr std::uint64_t inflated_bytes_max = 8 * mib;
  /// Compressed data on their way: the largest cluster's may claim 4 MiB.
  static constexpr std::size_t staging_bytes_max = 16 * mib;

  ImageState(std::string name_, Header header_, std::shared_ptr<BlockDevice> storage_)
      : name(std::move(name_)),
        header(std::move(header_)),
        rules(header),
        geometry(header),
        storage(std::move(storage_)),
        tables(*storage, header.cluster_bytes()) {}

  const std::string name;  ///< for messages, without secrets
  /// The writer changes fields (features, tables moved) under its own lock; readers use only what never
  /// changes while an image is open: version, cluster_bits, extended_l2 (copied to `rules`).
  Header header;
  const EntryRules rules;
  const Geometry geometry;
  std::uint64_t size_bytes = 0;  ///< of the disk that is read

  std::shared_ptr<BlockDevice> storage;    ///< the qcow2 file
  std::shared_ptr<BlockDevice> data_file;  ///< null: guest data lie in `storage`
  std::shared_ptr<BlockDevice> backing;    ///< the disk below, flattened; null: none

  MetadataCache tables;
  std::unique_ptr<L1Table> l1;  ///< never null in an open image
  /// By host offset of the compressed data. The writer forgets a key after wait_for_earlier() and before the
  /// space is used again.
  LoadingCache<const InflatedCluster> inflated{inflated_bytes_max};
  BufferPool staging{staging_bytes_max};
  Readers readers;
  bool is_writable = false;

  BlockDevice& data() noexcept { return data_file ? *data_file : *storage; }
};

}  // namespace diskferry::qcow2
