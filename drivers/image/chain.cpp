// See chain.hpp. Names, formats and loops are checked before a storage is opened or believed.
#include "drivers/image/chain.hpp"

#include "diskferry/units.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/foreign/foreign.hpp"
#include "drivers/foreign/formats.hpp"
#include "drivers/image/format.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/image/qcow2/recorded_bitmap.hpp"
#include "drivers/image/qcow2/storage_read.hpp"
#include "drivers/registry.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <xxhash.h>

namespace diskferry {
namespace {

Error refuse(ErrorKind kind, const ImageUri& uri, std::string why) {
  return fail(kind, "open", uri.to_string()).why(std::move(why));
}

std::vector<BitmapRange> public_ranges(const std::vector<qcow2::DirtyRange>& found) {
  std::vector<BitmapRange> ranges;
  ranges.reserve(found.size());
  for (const auto& one : found)
    ranges.push_back({.offset = one.offset, .length = one.length, .is_dirty = one.is_dirty});
  return ranges;
}

/// A BitmapReader as the rest of the program sees bitmaps.
class Qcow2BitmapView final : public BitmapView {
 public:
  Qcow2BitmapView(std::unique_ptr<qcow2::BitmapReader> reader, BitmapDescription description)
      : reader_(std::move(reader)), description_(std::move(description)) {}
  const BitmapDescription& description() const noexcept override { return description_; }
  Task<Result<std::vector<BitmapRange>>> ranges(Range range, std::size_t ranges_max) override {
    DISKFERRY_CO_TRY(const auto found, co_await reader_->ranges(range, ranges_max));
    co_return public_ranges(found);
  }

 private:
  std::unique_ptr<qcow2::BitmapReader> reader_;
  BitmapDescription description_;
};

/// A bitmap that records what is written to its image, as it is at the time of each question.
class LiveBitmapView final : public BitmapView {
 public:
  LiveBitmapView(std::shared_ptr<const qcow2::RecordedBitmap> bitmap, BitmapDescription description)
      : bitmap_(std::move(bitmap)), description_(std::move(description)) {}
  const BitmapDescription& description() const noexcept override { return description_; }
  Task<Result<std::vector<BitmapRange>>> ranges(Range range, std::size_t ranges_max) override {
    co_return public_ranges(bitmap_->ranges(range, ranges_max));
  }

 private:
  std::shared_ptr<const qcow2::RecordedBitmap> bitmap_;
  BitmapDescription description_;
};

BitmapDescription describe(const qcow2::BitmapEntry& entry) {
  return {.name = entry.name,
          .granularity_bytes = entry.granularity_bits < 64 ? entry.granularity_bytes() : 0,
          .is_in_use = entry.is_in_use(),
          .is_auto = entry.is_auto(),
          .problem = entry.problem};
}

}  // namespace

Task<Result<std::vector<std::byte>>> read_start(BlockDevice& storage, std::uint64_t bytes_max) {
  std::vector<std::byte> start(std::min(storage.size_bytes(), bytes_max));
  DISKFERRY_CO_CHECK(co_await qcow2::read_storage(storage, 0, start));
  co_return start;
}

Result<LayerIdentity> identity_of(const ImageUri& uri, const BlockDevice& storage,
                                  std::span<const std::byte> start) {
  LayerIdentity identity;
  identity.size_bytes = storage.size_bytes();
  start = start.first(std::min(start.size(), identity_bytes));
  identity.header_hash = XXH3_64bits(start.data(), start.size());
  if (!uri.is_file()) return identity;
  DISKFERRY_TRY(const FileIdentity file, file_identity(uri.path()));
  identity.device = file.device;
  identity.inode = file.inode;
  identity.size_bytes = file.size_bytes;
  identity.modified_ns = file.modified_ns;
  return identity;
}

ChainOpener::ChainOpener(DriverContext& context, ImageUri uri, ImageOpenOptions options)
    : context_(context),
      uri_(std::move(uri)),
      options_(std::move(options)),
      allowed_(uri_, options_.allow_backing) {}

Task<Result<Image>> ChainOpener::open() {
  auto image = co_await open_all();
  if (!image) co_await close_all();
  co_return image;
}

Task<Result<Image>> ChainOpener::open_all() {
  if (options_.writable && !options_.snapshot.empty())
    co_return unexpected(refuse(ErrorKind::invalid_argument, uri_, "a snapshot can only be read"));
  for (std::optional<Reference> next = Reference{.uri = uri_, .format = options_.format}; next;) {
    if (auto opened = co_await open_layer(*next); !opened) {
      Error error = std::move(opened).error();
      if (next->is_backing)
        error = std::move(error).in(fmt::format("open backing image {}", next->uri.to_string()));
      if (!next->is_backing || !may_leave_out(error)) co_return unexpected(std::move(error));
      co_await leave_out(layers_.back(), std::move(error));
      break;
    }
    auto backing = backing_of(layers_.back());
    if (!backing) {
      if (!may_leave_out(backing.error())) co_return unexpected(std::move(backing).error());
      const std::string name = layers_.back().header->backing_name;
      layers_.emplace_back().description.uri = ImageUri::from_path(name);
      co_await leave_out(layers_.back(), std::move(backing).error());
      break;
    }
    next = *std::move(backing);
  }
  DISKFERRY_CO_TRY(auto device, co_await build());
  std::vector<LayerDescription> descriptions;
  descriptions.reserve(layers_.size());
  for (Layer& layer : layers_) descriptions.push_back(std::move(layer.description));
  co_return Image(std::move(device), std::move(descriptions), std::move(bitmaps_));
}

Result<std::optional<ChainOpener::Reference>> ChainOpener::backing_of(const Layer& layer) {
  if (!layer.header || layer.header->backing_name.empty() || options_.top_only)
    return std::optional<Reference>();
  if (layers_.size() == layers_max)
    return unexpected(
        refuse(ErrorKind::too_large, uri_, fmt::format("the chain has more than {} layers", layers_max))
            .remedy("flatten a part of it with qemu-img rebase or commit"));
  DISKFERRY_TRY(auto backing,
                allowed_.resolve(layer.description.uri, layer.header->backing_name, "backing image"));
  return Reference{.uri = std::move(backing.uri),
                   .format = layer.header->backing_format.value_or(""),
                   .is_backing = true,
                   .real_path = std::move(backing.real_path)};
}

bool ChainOpener::may_leave_out(const Error& error) const {
  return options_.allow_partial && !options_.writable && error.kind() != ErrorKind::cancelled;
}

Task<void> ChainOpener::leave_out(Layer& layer, Error problem) {
  layer.description.problem = std::move(problem);
  layer.header.reset();
  for (auto* const storage : {&layer.data_file, &layer.storage}) {
    if (*storage) (void)co_await std::exchange(*storage, nullptr)->close();
  }
}

Task<Result<std::shared_ptr<BlockDevice>>> ChainOpener::open_storage_once(ImageUri uri, std::string real_path,
                                                                          bool writable) {
  bool is_new = false;
  if (uri.is_file()) {
    DISKFERRY_CO_TRY(const FileIdentity identity, file_identity(real_path.empty() ? uri.path() : real_path));
    is_new = opened_files_.emplace(identity.device, identity.inode).second;
  } else {
    is_new = opened_others_.insert(uri.to_uri_with_secrets()).second;
  }
  if (!is_new)
    co_return unexpected(refuse(ErrorKind::corrupt, uri, "the chain comes back to an image it already has"));
  const OpenOptions options{.writable = writable,
                            .force_share = options_.force_share,
                            .without_lock = options_.without_lock,
                            .real_path = std::move(real_path),
                            .connections = options_.connections};
  if (options_.keep) co_return co_await open_kept_storage(context_, std::move(uri), options, *options_.keep);
  DISKFERRY_CO_TRY(auto device, co_await open_storage(context_, std::move(uri), options));
  co_return std::shared_ptr<BlockDevice>(std::move(device));
}

Result<std::string> ChainOpener::choose_format(const Reference& reference, std::span<const std::byte> start,
                                               std::span<const std::byte> end) const {
  if (!reference.format.empty()) return std::string(canonical_format(reference.format));
  const std::string_view probed = probe_format(start, end);
  if (reference.is_backing && probed != "raw" && probed != "qcow2")
    return unexpected(
        refuse(ErrorKind::unsupported, reference.uri,
               fmt::format("it looks like a {} image, and its overlay does not say its format", probed))
            .remedy("set the format with qemu-img rebase -u -F ..., raw if it is a disk as it is"));
  if (reference.is_backing) return std::string(probed);
  // A guest can write any header into its raw disk. Where the name says raw, somebody has to decide.
  if (!options_.writable && name_says_raw(reference.uri.path()) && probed != "raw")
    return unexpected(refuse(ErrorKind::invalid_argument, reference.uri,
                             fmt::format("it looks like a {} image, but its name says raw", probed))
                          .remedy("give the format: raw, if a guest has written to it as its disk"));
  if (!options_.writable && foreign::reads_format(probed) && !name_says(reference.uri.path(), probed))
    return unexpected(
        refuse(ErrorKind::invalid_argument, reference.uri,
               fmt::format("it looks like a {} image, but its name does not say so", probed))
            .remedy(fmt::format("give the format: {}, or raw if it is a disk that a guest has written to",
                                probed)));
  if (!options_.writable) return std::string(probed);
  std::string by_name = format_for_target(reference.uri);
  if (probed != "raw" && probed != by_name)
    return unexpected(refuse(ErrorKind::invalid_argument, reference.uri,
                             fmt::format("it looks like a {} image, but its name says {}", probed, by_name))
                          .remedy("give the format"));
  return by_name;
}

Task<Result<void>> ChainOpener::open_layer(Reference reference) {
  const bool writable = options_.writable && !reference.is_backing;
  layers_.emplace_back();
  Layer& layer = layers_.back();
  layer.description.uri = reference.uri;
  DISKFERRY_CO_TRY(layer.storage, co_await open_storage_once(reference.uri, reference.real_path, writable));
  DISKFERRY_CO_TRY(auto start, co_await read_start(*layer.storage, identity_bytes));
  DISKFERRY_CO_TRY(layer.description.identity, identity_of(reference.uri, *layer.storage, start));
  std::vector<std::byte> end(std::min<std::uint64_t>(512, layer.storage->size_bytes()));
  if (reference.format.empty())
    DISKFERRY_CO_CHECK(
        co_await qcow2::read_storage(*layer.storage, layer.storage->size_bytes() - end.size(), end));
  DISKFERRY_CO_TRY(const std::string format, choose_format(reference, start, end));

  LayerDescription& description = layer.description;
  description.format = format;
  description.size_bytes = layer.storage->size_bytes();
  if (reference.uri.is_file()) {
    if (const auto file = file_identity(reference.uri.path()))
      description.allocated_bytes = file->allocated_bytes;
  }
  if (format == "qcow2") co_return co_await open_qcow2(layer, reference, std::move(start));
  if (foreign::reads_format(format)) co_return co_await open_foreign(layer, reference);
  if (format != "raw")
    co_return unexpected(refuse(ErrorKind::unsupported, reference.uri,
                                fmt::format("{} images are not read from here", printable(format)))
                             .remedy("give the format raw if it is a disk as it is"));
  if (!reference.is_backing && !options_.snapshot.empty())
    co_return unexpected(refuse(ErrorKind::invalid_argument, reference.uri, "a raw image has no snapshots"));
  co_return Result<void>{};
}

/// Through qemu-nbd, which opens the storage itself.
Task<Result<void>> ChainOpener::open_foreign(Layer& layer, const Reference& reference) {
  LayerDescription& description = layer.description;
  if (options_.writable && !reference.is_backing)
    co_return unexpected(refuse(ErrorKind::read_only, reference.uri,
                                fmt::format("{} images are only read from here", description.format)));
  if (!reference.is_backing && !options_.snapshot.empty())
    co_return unexpected(refuse(ErrorKind::invalid_argument, reference.uri,
                                fmt::format("snapshots in {} images are not read", description.format)));
  DISKFERRY_CO_CHECK(co_await std::exchange(layer.storage, nullptr)->close());
  DISKFERRY_CO_TRY(auto opened,
                   co_await foreign::open_foreign(context_, {.uri = reference.uri,
                                                             .format = description.format,
                                                             .real_path = reference.real_path,
                                                             .folders = allowed_.folders(),
                                                             .force_share = options_.force_share,
                                                             .connections = options_.connections}));
  layer.storage = checked(std::move(opened.device));
  description.size_bytes = layer.storage->size_bytes();
  for (std::string& path : opened.further_files) {
    if (const auto file = file_identity(path)) description.allocated_bytes += file->allocated_bytes;
    description.further_files.push_back(ImageUri::from_path(std::move(path)));
  }
  co_return Result<void>{};
}

Task<Result<void>> ChainOpener::open_qcow2(Layer& layer, const Reference& reference,
                                           std::vector<std::byte> start) {
  const std::string name = reference.uri.to_string();
  DISKFERRY_CO_TRY(const std::uint64_t area, qcow2::header_area_bytes(start, name));
  if (area > start.size()) {
    DISKFERRY_CO_TRY(start, co_await read_start(*layer.storage, area));
  }
  DISKFERRY_CO_TRY(layer.header, qcow2::parse_header(start, name));
  const qcow2::Header& header = *layer.header;
  DISKFERRY_CO_CHECK(qcow2::check_tables_inside(header, layer.storage->size_bytes(), name));
  if (reference.is_backing && reference.format.empty() &&
      (!header.backing_name.empty() || header.has_data_file()))
    co_return unexpected(
        refuse(ErrorKind::permission, reference.uri,
               "its overlay does not say its format, and it refers to further files; a guest could "
               "have written that into a raw disk")
            .remedy("set the format with qemu-img rebase -u -F qcow2 -b ..."));
  if (options_.writable && !reference.is_backing && header.is_corrupt())
    co_return unexpected(refuse(ErrorKind::read_only, reference.uri, "the image is marked corrupt")
                             .remedy("repair it with qemu-img check -r all, or open it for reading"));
  DISKFERRY_CO_CHECK(co_await describe_qcow2(layer, header, !reference.is_backing));
  if (header.has_data_file()) {
    auto opened = co_await open_data_file(layer, header.data_file.value_or(""));
    if (!opened && !may_leave_out(opened.error())) co_return opened;
    if (!opened) layer.description.data_file_problem = std::move(opened).error();
  }
  co_return Result<void>{};
}

Task<Result<void>> ChainOpener::describe_qcow2(Layer& layer, const qcow2::Header& header, bool is_top) {
  LayerDescription& description = layer.description;
  description.size_bytes = header.size_bytes;
  description.cluster_bytes = header.cluster_bytes();
  description.compatibility = header.version == 2 ? "0.10" : "1.1";
  description.compression =
      header.compression_type == qcow2::CompressionType::zstd ? Compression::zstd : Compression::zlib;
  description.refcount_bits = header.refcount_bits();
  description.has_extended_l2 = header.has_extended_l2();
  description.is_dirty = header.is_dirty();
  description.is_corrupt = header.is_corrupt();
  description.data_file = header.data_file.value_or("");
  description.backing_name = header.backing_name;
  description.backing_format = header.backing_format.value_or("");
  DISKFERRY_CO_TRY(const auto snapshots, co_await qcow2::load_snapshots(*layer.storage, header));
  for (const auto& one : snapshots)
    description.snapshots.push_back({.id = one.id,
                                     .name = one.name,
                                     .vm_state_bytes = one.vm_state_bytes,
                                     .size_bytes = one.disk.size_bytes,
                                     .created_s = one.created_s});
  if (is_top && !options_.snapshot.empty()) {
    DISKFERRY_CO_TRY(const auto chosen,
                     qcow2::find_snapshot(snapshots, options_.snapshot, header, layer.storage->size_bytes()));
    layer.snapshot = chosen.disk;
  }
  DISKFERRY_CO_TRY(layer.bitmaps, co_await qcow2::load_bitmap_directory(*layer.storage, header));
  for (const auto& one : layer.bitmaps) description.bitmaps.push_back(describe(one));
  co_return Result<void>{};
}

Task<Result<void>> ChainOpener::open_data_file(Layer& layer, std::string name) {
  if (!options_.allow_data_file)
    co_return unexpected(refuse(ErrorKind::permission, layer.description.uri,
                                fmt::format("the guest's data lie in another file, \"{}\"", printable(name)))
                             .remedy("allow it with --allow-data-file if you trust this image"));
  DISKFERRY_CO_TRY(auto found, allowed_.resolve(layer.description.uri, name, "data file"));
  const bool writable = options_.writable && &layer == &layers_.front();
  auto opened = co_await open_storage_once(found.uri, found.real_path, writable);
  if (!opened)
    co_return unexpected(
        std::move(opened).error().in(fmt::format("open data file {}", found.uri.to_string())));
  layer.data_file = *std::move(opened);
  if (const auto file = file_identity(found.real_path))
    layer.description.allocated_bytes += file->allocated_bytes;
  layer.description.data_file_uri = std::move(found.uri);
  co_return Result<void>{};
}

/// Devices from the bottom up; each takes over the one below. What is left out has none, and neither has what
/// lies below it; null: the top has none.
Task<Result<std::shared_ptr<BlockDevice>>> ChainOpener::build() {
  std::shared_ptr<BlockDevice> below;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    if (layer.description.problem) continue;
    if (layer.description.data_file_problem) {
      if (below) (void)co_await std::exchange(below, nullptr)->close();
      (void)co_await std::exchange(layer.storage, nullptr)->close();
      continue;
    }
    if (!layer.header) {
      below = std::exchange(layer.storage, nullptr);
      continue;
    }
    auto device = co_await qcow2::Qcow2Device::open(
        context_, {.name = layer.description.uri.to_string(),
                   .header = *layer.header,
                   .storage = layer.storage,
                   .data_file = layer.data_file,
                   .backing = below,
                   .snapshot = layer.snapshot,
                   .writable = options_.writable && i == 0,
                   .compress_writes = options_.compression != Compression::none});
    if (!device) {
      if (below) (void)co_await std::exchange(below, nullptr)->close();
      if (i == 0 || !may_leave_out(device.error())) co_return unexpected(std::move(device).error());
      co_await leave_out(layer, std::move(device).error());
      continue;
    }
    if (i == 0) add_bitmaps(**device);
    layer.storage = nullptr;
    layer.data_file = nullptr;
    below = checked(*std::move(device));
  }
  co_return below;
}

void ChainOpener::add_bitmaps(qcow2::Qcow2Device& device) {
  Layer& top = layers_.front();
  const auto recorded = device.recorded_bitmaps();
  // Opening for writing gives up what it cannot follow.
  const bool are_given_up = (device.image().header.autoclear_features & qcow2::autoclear::bitmaps) == 0;
  for (std::size_t i = 0; i < top.bitmaps.size(); ++i) {
    qcow2::BitmapEntry& entry = top.bitmaps[i];
    BitmapDescription& description = top.description.bitmaps[i];
    if (!entry.problem.empty()) continue;
    if (layers_.front().snapshot) {
      description.problem = "it tells of the disk as it is now, not of a snapshot";
      continue;
    }
    const auto live =
        std::ranges::find_if(recorded, [&](const auto& one) { return one->entry().name == entry.name; });
    if (options_.writable && (are_given_up || (entry.is_auto() && live == recorded.end()))) {
      description.problem = are_given_up
                                ? "the bitmap directory cannot be followed, so it ends with this writing"
                                : "it is too large or too damaged to be kept true while the image is written";
      continue;
    }
    if (live != recorded.end()) {
      bitmaps_.push_back(std::make_shared<LiveBitmapView>(*live, description));
      continue;
    }
    // It records nothing (or nobody writes): what is stored is what it says.
    bitmaps_.push_back(std::make_shared<Qcow2BitmapView>(
        std::make_unique<qcow2::BitmapReader>(top.storage, *top.header, std::move(entry)), description));
  }
}

Task<void> ChainOpener::close_all() {
  co_await boost::asio::this_coro::reset_cancellation_state();
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  for (Layer& layer : layers_) {
    if (layer.data_file) (void)co_await layer.data_file->close();
    if (layer.storage) (void)co_await layer.storage->close();
  }
}

}  // namespace diskferry
