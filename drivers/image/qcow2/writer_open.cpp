// Making an image writable: may it be written at all, where do its metadata lie, what must its header not
// claim any more.
#include "drivers/image/qcow2/snapshots.hpp"
#include "drivers/image/qcow2/writer.hpp"

#include <fmt/format.h>

namespace diskferry::qcow2 {
namespace {
/// How many clusters the L1 tables of all snapshots may take: 40 MiB of memory to remember them, and 4096
/// snapshots of a disk of 16 TiB with clusters of 64 KiB.
constexpr std::uint64_t snapshot_table_clusters_max = std::uint64_t{1} << 20;

Error refused(const ImageState& image, std::string why) {
  return fail(ErrorKind::read_only, "open for writing", image.name)
      .why(std::move(why))
      .remedy("repair a copy of the image with qemu-img check -r all, then use that");
}
}  // namespace

Task<Result<std::shared_ptr<Writer>>> Writer::open(ImageState& image, bool compress_writes) {
  auto writer = std::make_shared<Writer>(image, compress_writes);
  DISKFERRY_CO_CHECK(co_await writer->check_and_load());
  co_return writer;
}

Task<Result<void>> Writer::check_and_load() {
  Header& header = image_.header;
  if (header.is_corrupt()) co_return unexpected(refused(image_, "the image is marked as corrupt"));
  if (header.has_data_file() && !image_.data_file)
    co_return unexpected(refused(image_, "the external data file is not open"));
  // Two tables, or a table and data, in one block of the storage: writing one would undo the other.
  if (image_.storage->info().block_bytes > header.cluster_bytes() ||
      image_.data().info().block_bytes > header.cluster_bytes())
    co_return unexpected(
        fail(ErrorKind::unsupported, "open for writing", image_.name)
            .why(fmt::format("its clusters of {} bytes are smaller than a block of the storage",
                             header.cluster_bytes()))
            .remedy("copy the image to one with larger clusters"));
  DISKFERRY_CO_CHECK(co_await allocator_.load());
  DISKFERRY_CO_CHECK(co_await find_metadata());
  if (header.is_dirty()) DISKFERRY_CO_CHECK(co_await count_anew());
  // Bits that nobody here keeps true are to be cleared before the first write (specification,
  // autoclear_features).
  std::uint64_t kept = header.autoclear_features & autoclear::data_file_raw;
  if (header.bitmaps && (header.autoclear_features & autoclear::bitmaps) != 0) {
    DISKFERRY_CO_TRY(const bool are_kept, co_await bitmaps_.open(image_, metadata_));
    if (are_kept) kept |= autoclear::bitmaps;
  }
  if (header.version >= 3 && kept != header.autoclear_features) {
    header.autoclear_features = kept;
    DISKFERRY_CO_CHECK(co_await patch_header(88, kept));
    DISKFERRY_CO_CHECK(co_await image_.storage->flush());
  }
  co_return Result<void>{};
}

/// Lazy refcounts: whoever wrote the image last did not get to counting. The dirty bit stays until all that
/// is corrected is durable; a crash before leaves an image that is counted again.
Task<Result<void>> Writer::count_anew() {
  Recount recount(image_, metadata_);
  DISKFERRY_CO_CHECK(co_await recount.count(allocator_.table()));
  DISKFERRY_CO_CHECK(allocator_.add_missing_blocks(recount));
  for (std::uint64_t block = 0; block < allocator_.table().size(); ++block) {
    DISKFERRY_CO_CHECK(co_await allocator_.correct_block(recount, block));
    if (dirty_.held_bytes() > dirty_bytes_max) DISKFERRY_CO_CHECK(co_await commit());
  }
  DISKFERRY_CO_CHECK(co_await commit());
  DISKFERRY_CO_CHECK(co_await correct_copied_flags(recount));
  DISKFERRY_CO_CHECK(co_await commit());
  image_.header.incompatible_features &= ~incompatible::dirty;
  DISKFERRY_CO_CHECK(co_await patch_header(72, image_.header.incompatible_features));
  co_return co_await image_.storage->flush();
}

/// "Copied" in an entry says that nobody else refers to what it names, and then it is written in place.
Task<Result<void>> Writer::correct_copied_flags(const Recount& recount) {
  const auto is_ours = [&](std::uint64_t host) { return recount.of(host >> geometry_.cluster_bits) == 1; };
  const std::size_t words = geometry_.l2_entry_bytes() / 8;
  for (std::size_t index = 0; index < image_.l1->size(); ++index) {
    const L1Entry l1 = decode_l1(image_.l1->get(index), geometry_);
    if (l1.l2_offset == 0) continue;
    if (l1.is_copied != is_ours(l1.l2_offset)) {
      image_.l1->set(index, encode_l1(l1.l2_offset, is_ours(l1.l2_offset)));
      dirty_.mark_l1(index);
    }
    for (std::uint64_t at = 0; !image_.data_file && at < geometry_.cluster_bytes();
         at += image_.tables.slice_bytes()) {
      DISKFERRY_CO_TRY(const auto slice, co_await image_.tables.load(l1.l2_offset + at));
      for (std::size_t word = 0; word < slice->words.size(); word += words) {
        std::unique_lock lock(slice->guard);
        const std::uint64_t raw = slice->word(word);
        const std::uint64_t host = raw & offset_mask;
        if ((raw & flag_compressed) != 0 || host == 0 || ((raw & flag_copied) != 0) == is_ours(host))
          continue;
        slice->set_word(word, raw ^ flag_copied);
        lock.unlock();
        dirty_.mark(slice, word * 8, (word + 1) * 8, TableKind::l2_table);
      }
    }
    if (dirty_.held_bytes() > dirty_bytes_max) DISKFERRY_CO_CHECK(co_await commit());
  }
  co_return Result<void>{};
}

Task<Result<void>> Writer::patch_header(std::uint64_t offset, std::uint64_t value) {
  const Lock lock = co_await lock_always(header_lock_);
  std::array<std::byte, 8> bytes;
  store_big(bytes.data(), value);
  co_return co_await write_storage(*image_.storage, offset, bytes);
}

Task<Result<void>> Writer::add_metadata(Range host, std::string_view what) {
  if (host.empty()) co_return Result<void>{};
  if (metadata_.add(host)) co_return Result<void>{};
  co_return unexpected(
      fail(ErrorKind::corrupt, "open for writing", image_.name)
          .why(fmt::format("{} at host offset {} overlaps other metadata", what, host.offset))
          .remedy("repair a copy of the image with qemu-img check -r all"));
}

Task<Result<void>> Writer::find_metadata() {
  const Header& header = image_.header;
  const std::uint64_t cluster = geometry_.cluster_bytes();
  DISKFERRY_CO_CHECK(co_await add_metadata({0, cluster}, "the header"));
  DISKFERRY_CO_CHECK(
      co_await add_metadata({header.l1_offset, std::uint64_t{header.l1_entries} * 8}, "the L1 table"));
  DISKFERRY_CO_CHECK(co_await add_metadata(
      {header.refcount_table_offset, header.refcount_table_clusters * cluster}, "the refcount table"));
  for (const std::uint64_t block : allocator_.table())
    if (block != 0) DISKFERRY_CO_CHECK(co_await add_metadata({block, cluster}, "a refcount block"));
  for (std::size_t i = 0; i < image_.l1->size(); ++i) {
    const L1Entry entry = decode_l1(image_.l1->get(i), geometry_);
    if (entry.problem != EntryProblem::none)
      co_return unexpected(fail(ErrorKind::corrupt, "open for writing", image_.name)
                               .why(fmt::format("L1 entry {} {}", i, to_string(entry.problem)))
                               .remedy("repair a copy of the image with qemu-img check -r all"));
    if (entry.l2_offset != 0)
      DISKFERRY_CO_CHECK(co_await add_metadata({entry.l2_offset, cluster}, "an L2 table"));
  }
  // What cannot be a directory is not believed by anybody, see load_bitmap_directory().
  if (header.bitmaps && header.bitmaps->directory_bytes <= bitmap_directory_bytes_max)
    metadata_.add({header.bitmaps->directory_offset, header.bitmaps->directory_bytes});
  if (header.snapshot_count == 0) co_return Result<void>{};
  DISKFERRY_CO_TRY(const auto snapshots, co_await load_snapshots(*image_.storage, header));
  metadata_.add({header.snapshots_offset, 1});
  std::uint64_t clusters = 0;
  for (const Snapshot& one : snapshots) {
    const Range table{one.disk.l1_offset, std::uint64_t{one.disk.l1_entries} * 8};
    clusters += divide_up(table.length, cluster);
    if (table.length > l1_bytes_max || !is_inside(table, image_.storage->size_bytes()) ||
        clusters > snapshot_table_clusters_max)
      co_return unexpected(
          fail(ErrorKind::corrupt, "open for writing", image_.name)
              .why(fmt::format("the L1 table of snapshot {} cannot have {} bytes at host offset {}", one.id,
                               table.length, table.offset))
              .remedy("repair a copy of the image with qemu-img check -r all"));
    DISKFERRY_CO_CHECK(co_await add_metadata(table, "the L1 table of a snapshot"));
  }
  co_return Result<void>{};
}

Task<Result<void>> Writer::preallocate(bool reserve) {
  const std::uint64_t cluster = geometry_.cluster_bytes();
  const std::uint64_t end = align_up(image_.size_bytes, cluster);
  for (std::uint64_t at = 0; at < end;) {
    std::optional<Target> target;
    while (!target) {
      Lock lock = co_await lock_metadata();
      DISKFERRY_CO_TRY(auto chosen,
                       co_await choose_target({at, std::min(end - at, std::uint64_t{256} * mib)}));
      const std::size_t entries_seen = allocator_.table().size();
      lock.unlock();
      if (chosen) {
        target = *chosen;
      } else {
        DISKFERRY_CO_CHECK(co_await make_room(entries_seen));
      }
    }
    const Range host{target->host_offset, target->entries.count * cluster};
    const bool is_zero = target->fill_is_zero && !reserve;
    const std::uint64_t below = image_.data().size_bytes();
    if (!is_zero || host.end() > below)
      DISKFERRY_CO_CHECK(co_await image_.data().write_zeroes(host, {.may_unmap = !reserve}));
    {
      const Lock lock = co_await lock_metadata();
      enter_target(*target);
    }
    at += host.length;
    DISKFERRY_CO_CHECK(co_await commit_if_full());
  }
  co_return Result<void>{};
}

}  // namespace diskferry::qcow2
