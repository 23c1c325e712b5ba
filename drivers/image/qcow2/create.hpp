// Making new images: the layout of an empty one, and writing it to a storage. Called by drivers/image.
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/image/qcow2/header.hpp"

#include <optional>
#include <string>
#include <vector>

namespace diskferry::qcow2 {

struct NewImage {
  std::uint64_t size_bytes = 0;
  std::uint32_t version = 3;
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  bool extended_l2 = false;
  CompressionType compression_type = CompressionType::zlib;
  std::string backing_name{};    ///< empty: none
  std::string backing_format{};  ///< empty: not declared
};

/// Pieces of a new image, in the order of writing; the header is the last, so that what is half written is no
/// image.
struct NewLayout {
  struct Piece {
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
  };
  Header header{};
  std::vector<Piece> pieces{};
  std::uint64_t end_bytes = 0;  ///< of the last cluster
};

/// Errors: invalid_argument (an impossible combination); too_large (the disk needs more than the format's
/// limits).
Result<NewLayout> lay_out(const NewImage& image);

/// Writes an empty image. What the storage had before is overwritten as far as it is needed. Durable at the
/// end. Lifetime: `storage` until the task ends. Errors: as lay_out(); no_space; as BlockDevice::write.
Task<Result<void>> create(BlockDevice& storage, NewImage image);

}  // namespace diskferry::qcow2
