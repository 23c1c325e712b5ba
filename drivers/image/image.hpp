// Images: a disk as an operator names it, whatever its storage and format. open_image() finds the storage,
// probes or takes the format, opens the backing chain, and gives one device: the disk as the guest sees it.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/image/kept_storage.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

enum class Compression : std::uint8_t { none, zlib, zstd };

struct ImageOpenOptions {
  /// "raw", "qcow2", for reading also what drivers/foreign reads; empty: probe (sources only, never a target)
  std::string format{};
  bool writable = false;
  bool force_share = false;   ///< open for reading although somebody else holds it
  bool without_lock = false;  ///< as OpenOptions::without_lock
  unsigned connections = 0;   ///< as OpenOptions::connections
  /// For a disk that a machine runs on: open_kept_storage(). nullopt: a server that loses what it had
  /// acknowledged fails the next flush, and from then on.
  std::optional<KeepOptions> keep{};
  std::vector<std::string> allow_backing{};  ///< further folders that backing and data files may lie in
  bool allow_data_file = false;              ///< open an external data file (below the same folders)
  /// Read-only: below the top, what cannot be opened is left out, and its description says why. Its data then
  /// are missing from the disk, so that this is for looking at the image only.
  bool allow_partial = false;
  bool top_only = false;        ///< ignore the backing image: what it has reads as a hole of depth_none
  std::string snapshot{};       ///< read this internal snapshot (name or id); not writable
  std::optional<Range> part{};  ///< raw only: the disk is this part of its storage; none: all of it
  Compression compression = Compression::none;  ///< whole clusters written become compressed ones
};

/// What one layer of a chain is, precisely enough to notice that somebody changed it.
struct LayerIdentity {
  std::uint64_t device = 0;  ///< st_dev; 0 where the storage has none
  std::uint64_t inode = 0;
  std::uint64_t size_bytes = 0;   ///< of the storage, not of the disk
  std::int64_t modified_ns = 0;   ///< since the epoch
  std::uint64_t header_hash = 0;  ///< of the first 64 KiB
  bool operator==(const LayerIdentity&) const = default;
};

struct SnapshotDescription {
  std::string id{};
  std::string name{};
  std::uint64_t vm_state_bytes = 0;
  std::uint64_t size_bytes = 0;
  std::int64_t created_s = 0;
};
struct BitmapDescription {
  std::string name{};
  std::uint64_t granularity_bytes = 0;
  bool is_in_use = false;  ///< not closed properly: its content means nothing
  bool is_auto = false;    ///< records writes
  std::string problem{};   ///< why it cannot be read; empty when it can
};
struct LayerDescription {
  ImageUri uri;
  std::string format{};
  std::uint64_t size_bytes = 0;                 ///< of the disk in this layer
  std::uint64_t allocated_bytes = 0;            ///< what the storage says it uses; 0: not known
  std::uint64_t cluster_bytes = 0;              ///< 0 for raw
  std::string compatibility{};                  ///< qcow2: "0.10" (v2) or "1.1" (v3)
  Compression compression = Compression::none;  ///< of compressed clusters, whether there are any or not
  unsigned refcount_bits = 0;
  bool has_extended_l2 = false;
  bool is_dirty = false;
  bool is_corrupt = false;
  std::string data_file{};                  ///< as the header says
  std::optional<ImageUri> data_file_uri{};  ///< the storage of the guest's data, where it is open
  std::vector<ImageUri> further_files{};    ///< what else a foreign image reads: extents, its own backing
  std::string backing_name{};               ///< as the header says
  std::string backing_format{};
  std::vector<SnapshotDescription> snapshots{};
  std::vector<BitmapDescription> bitmaps{};
  LayerIdentity identity;
  /// With allow_partial: why the layer could not be opened. Then of all the rest only `uri` is certain.
  std::optional<Error> problem{};
  std::optional<Error> data_file_problem{};  ///< the same of its data file
};

struct BitmapRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool is_dirty = false;
};
/// A persistent dirty bitmap, for reading.
class BitmapView {
 public:
  virtual ~BitmapView() = default;
  virtual const BitmapDescription& description() const noexcept = 0;
  /// As BlockDevice::extents: a contiguous prefix of `range`, merged, at most `ranges_max`.
  virtual Task<Result<std::vector<BitmapRange>>> ranges(Range range, std::size_t ranges_max) = 0;
};

/// An open image. Lifetime: close() before destruction.
class Image {
 public:
  Image(std::shared_ptr<BlockDevice> device, std::vector<LayerDescription> layers,
        std::vector<std::shared_ptr<BitmapView>> bitmaps);
  Image(Image&&) = default;
  Image& operator=(Image&&) = default;

  /// False only where allow_partial was given and the top's data file could not be opened.
  bool has_device() const noexcept { return device_ != nullptr; }
  /// The guest-visible disk, behind a CheckedDevice. Precondition: has_device().
  BlockDevice& device() noexcept { return *device_; }
  const std::shared_ptr<BlockDevice>& shared_device() const noexcept { return device_; }
  /// Puts a filter in front of the disk: `device` wraps what shared_device() gave, and closing it closes
  /// that.
  void put_in_front(std::shared_ptr<BlockDevice> device) { device_ = std::move(device); }
  /// Top first; at least one.
  const std::vector<LayerDescription>& layers() const noexcept { return layers_; }
  const std::vector<std::shared_ptr<BitmapView>>& bitmaps() const noexcept { return bitmaps_; }
  /// Every storage the disk's content comes from: each layer, top first, followed by its further files.
  std::vector<ImageUri> storages() const;
  Task<Result<void>> close();

 private:
  std::shared_ptr<BlockDevice> device_;
  std::vector<LayerDescription> layers_{};
  std::vector<std::shared_ptr<BitmapView>> bitmaps_;
};

/// Errors: as open_storage(); corrupt, unsupported (named feature or format), too_large (a limit), permission
/// (a backing or data file outside the allowed folders), in_use.
Task<Result<Image>> open_image(DriverContext& context, ImageUri uri, ImageOpenOptions options);

struct ImageCreateOptions {
  std::string format = "raw";
  std::uint64_t size_bytes = 0;
  std::uint64_t cluster_bytes = 0;  ///< 0: the format's default (qcow2: 64 KiB)
  unsigned refcount_bits = 16;
  bool extended_l2 = false;
  std::string compatibility = "1.1";
  Compression compression_type = Compression::none;  ///< of compressed clusters; none: the format's default
  enum class Preallocate : std::uint8_t { off, metadata, full } preallocate = Preallocate::off;
  std::string backing_name{};  ///< stored as given
  std::string backing_format{};
  bool replace = false;  ///< overwrite what is there
};
/// Makes an empty image (and its storage, where it is not there). Errors: as create_storage().
Task<Result<void>> create_image(DriverContext& context, ImageUri uri, ImageCreateOptions options);

/// The identity of an image's storage now, to be compared with the one noted at open.
Task<Result<LayerIdentity>> identify(DriverContext& context, ImageUri uri);

/// "qcow2" for *.qcow2 and *.qcow, else "raw": what a target becomes when no format is given.
std::string format_for_target(const ImageUri& uri);

}  // namespace diskferry
