// Opening an image and everything below it: storage by storage down the chain, then devices from the bottom
// up. Called by open_image() only.
#pragma once

#include "drivers/image/allowed_folders.hpp"
#include "drivers/image/image.hpp"
#include "drivers/image/qcow2/bitmaps.hpp"
#include "drivers/image/qcow2/header.hpp"
#include "drivers/image/qcow2/snapshots.hpp"

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace diskferry {
namespace qcow2 {
class Qcow2Device;
}

/// A storage of the chain that has been opened, and what its header says.
struct Layer {
  LayerDescription description;
  std::shared_ptr<BlockDevice> storage;
  std::shared_ptr<BlockDevice> data_file;  // null: none
  std::optional<qcow2::Header> header;     // of qcow2
  std::optional<qcow2::DiskView> snapshot;
  std::vector<qcow2::BitmapEntry> bitmaps;
};

class ChainOpener {
 public:
  /// How many layers a chain may have: each costs a descriptor and memory. QEMU has no limit but its stack.
  static constexpr std::size_t layers_max = 256;

  /// Lifetime: `context` outlives it.
  ChainOpener(DriverContext& context, ImageUri uri, ImageOpenOptions options);

  /// Opens all; on error everything opened is closed again. Called once.
  Task<Result<Image>> open();

 private:
  struct Reference {
    ImageUri uri;
    std::string format;       // "": not declared
    bool is_backing = false;  // else the top
    std::string real_path{};  // empty: the operator's own name, which may go through links
  };
  Task<Result<Image>> open_all();
  Task<Result<void>> open_layer(Reference reference);
  /// The next one down; nullopt: `layer` is the base.
  Result<std::optional<Reference>> backing_of(const Layer& layer);
  /// Whether the chain may end here, or go on without a data file.
  bool may_leave_out(const Error& error) const;
  /// Keeps the description of a layer with the reason why nothing else is kept.
  static Task<void> leave_out(Layer& layer, Error problem);
  Task<Result<void>> open_foreign(Layer& layer, const Reference& reference);
  Task<Result<void>> open_qcow2(Layer& layer, const Reference& reference, std::vector<std::byte> start);
  Task<Result<void>> describe_qcow2(Layer& layer, const qcow2::Header& header, bool is_top);
  Task<Result<void>> open_data_file(Layer& layer, std::string name);
  Task<Result<std::shared_ptr<BlockDevice>>> open_storage_once(ImageUri uri, std::string real_path,
                                                               bool writable);
  Result<std::string> choose_format(const Reference& reference, std::span<const std::byte> start,
                                    std::span<const std::byte> end) const;
  Task<Result<std::shared_ptr<BlockDevice>>> build();
  /// Views of the top's bitmaps that can be believed; to those that cannot, layers_ gets the reason.
  void add_bitmaps(qcow2::Qcow2Device& device);
  Task<void> close_all();

  DriverContext& context_;
  const ImageUri uri_;
  const ImageOpenOptions options_;
  const AllowedFolders allowed_;
  std::vector<Layer> layers_;  // top first
  std::vector<std::shared_ptr<BitmapView>> bitmaps_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> opened_files_;
  std::set<std::string> opened_others_;
};

/// Reads the start of a storage for probing, identity and header. Errors: as BlockDevice::read.
Task<Result<std::vector<std::byte>>> read_start(BlockDevice& storage, std::uint64_t bytes_max);
/// What identifies the storage now. `start`: its first bytes, at least identity_bytes unless it is shorter.
Result<LayerIdentity> identity_of(const ImageUri& uri, const BlockDevice& storage,
                                  std::span<const std::byte> start);
inline constexpr std::size_t identity_bytes = std::size_t{64} * 1024;

}  // namespace diskferry
