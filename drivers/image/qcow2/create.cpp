// An empty image: header, refcount table, refcount blocks, L1 table, in this order.
#include "drivers/image/qcow2/create.hpp"

#include "drivers/image/qcow2/dirty_tables.hpp"
#include "drivers/image/qcow2/tables.hpp"

#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {

Error wrong(std::string why) {
  return fail(ErrorKind::invalid_argument, "create a qcow2 image").why(std::move(why));
}

Result<void> check(const NewImage& image) {
  if (image.version != 2 && image.version != 3)
    return unexpected(wrong("there are versions 2 (0.10) and 3 (1.1)"));
  if (image.cluster_bits < cluster_bits_min || image.cluster_bits > cluster_bits_max)
    return unexpected(wrong("clusters are a power of two from 512 bytes to 2 MiB"));
  if (image.refcount_order > refcount_order_max)
    return unexpected(wrong("refcounts are 1, 2, 4, 8, 16, 32 or 64 bits wide"));
  if (image.extended_l2 && image.cluster_bits < extended_l2_cluster_bits_min)
    return unexpected(wrong("extended L2 entries need clusters of 16 KiB or more"));
  if (image.version == 2 &&
      (image.refcount_order != 4 || image.extended_l2 || image.compression_type != CompressionType::zlib))
    return unexpected(
        wrong("version 2 (compatibility 0.10) has refcounts of 16 bits, zlib and standard L2 entries only"));
  if (image.backing_name.size() > backing_name_max)
    return unexpected(
        wrong(fmt::format("the backing image's name is longer than {} bytes", backing_name_max)));
  return {};
}

Header header_of(const NewImage& image) {
  Header header;
  header.version = image.version;
  header.cluster_bits = image.cluster_bits;
  header.size_bytes = image.size_bytes;
  header.refcount_order = image.refcount_order;
  header.backing_name = image.backing_name;
  if (!image.backing_name.empty() && !image.backing_format.empty())
    header.backing_format = image.backing_format;
  if (image.version < 3) return header;
  header.compression_type = image.compression_type;
  header.further_fields.assign(8, std::byte{0});  // compression_type and its padding
  header.further_fields[0] = static_cast<std::byte>(image.compression_type);
  if (image.compression_type != CompressionType::zlib)
    header.incompatible_features |= incompatible::compression;
  if (image.extended_l2) header.incompatible_features |= incompatible::extended_l2;
  header.feature_names = known_feature_names();
  return header;
}

}  // namespace

Result<NewLayout> lay_out(const NewImage& image) {
  DISKFERRY_CHECK(check(image));
  NewLayout layout{.header = header_of(image)};
  Header& header = layout.header;
  const Geometry geometry(header);
  const std::uint64_t cluster = geometry.cluster_bytes();
  const std::uint64_t l1_entries = geometry.l1_entries_needed(image.size_bytes);
  if (l1_entries * 8 > l1_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "create a qcow2 image")
                          .why(fmt::format("a disk of {} bytes needs an L1 table of more than {} bytes",
                                           image.size_bytes, l1_bytes_max))
                          .remedy("use larger clusters"));
  const std::uint64_t l1_clusters = std::max<std::uint64_t>(1, divide_up(l1_entries * 8, cluster));
  // Blocks to count what is there at the start, and a table of one cluster (or what those blocks need); it
  // grows.
  std::uint64_t blocks = 1;
  std::uint64_t table_clusters = 1;
  while (true) {
    const std::uint64_t used = 1 + table_clusters + blocks + l1_clusters;
    const std::uint64_t blocks_needed = divide_up(used, geometry.refcounts_per_block());
    const std::uint64_t table_needed = divide_up(blocks_needed * 8, cluster);
    if (blocks_needed <= blocks && table_needed <= table_clusters) break;
    blocks = std::max(blocks, blocks_needed);
    table_clusters = std::max(table_clusters, table_needed);
  }
  if (table_clusters * cluster > refcount_table_bytes_max)
    return unexpected(
        fail(ErrorKind::too_large, "create a qcow2 image").why("the refcount table would be too large"));
  const std::uint64_t used = 1 + table_clusters + blocks + l1_clusters;
  header.refcount_table_offset = cluster;
  header.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters);
  const std::uint64_t first_block = cluster * (1 + table_clusters);
  header.l1_offset = first_block + blocks * cluster;
  header.l1_entries = static_cast<std::uint32_t>(l1_entries);
  layout.end_bytes = used * cluster;

  std::vector<std::byte> table(table_clusters * cluster);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    store_big<std::uint64_t>(table.data() + i * 8, first_block + i * cluster);
    std::vector<std::byte> block(cluster);
    const std::uint64_t first = i * geometry.refcounts_per_block();
    const std::uint64_t end = std::min(used, first + geometry.refcounts_per_block());
    for (std::uint64_t at = first; at < end; ++at)
      store_refcount(block, at - first, geometry.refcount_order, 1);
    layout.pieces.push_back({first_block + i * cluster, std::move(block)});
  }
  layout.pieces.push_back({cluster, std::move(table)});
  layout.pieces.push_back({header.l1_offset, std::vector<std::byte>(l1_clusters * cluster)});
  auto serialized = serialize_header(header);
  if (!serialized) {
    header.feature_names.clear();  // a courtesy for older programs; small clusters have no room for it
    serialized = serialize_header(header);
  }
  DISKFERRY_TRY(auto area, std::move(serialized));
  area.resize(cluster);
  layout.pieces.push_back({0, std::move(area)});
  return layout;
}

Task<Result<void>> create(BlockDevice& storage, NewImage image) {
  DISKFERRY_CO_TRY(const NewLayout layout, lay_out(image));
  if (!storage.info().can_grow && layout.end_bytes > storage.size_bytes())
    co_return unexpected(
        fail(ErrorKind::no_space, "create a qcow2 image", storage.info().name)
            .why(fmt::format("an empty image of this size takes {} bytes, the storage has {}",
                             layout.end_bytes, storage.size_bytes())));
  for (const auto& piece : layout.pieces) {
    // The header goes last and after a barrier: what is half written is no image.
    if (piece.offset == 0) DISKFERRY_CO_CHECK(co_await storage.flush());
    DISKFERRY_CO_CHECK(co_await write_storage(storage, piece.offset, piece.bytes));
  }
  co_return co_await storage.flush();
}

}  // namespace diskferry::qcow2
