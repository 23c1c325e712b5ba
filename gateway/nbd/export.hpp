// Exports: what a client can name. An Export ties a name to a device that may be swapped while clients are
// connected (a mirror takes the place of the disk it moves), and to the rules of who may use it. The table is
// read by every handshake and changed by the owner of the server.
#pragma once

#include "diskferry/block_device.hpp"
#include "diskferry/sync.hpp"
#include "drivers/image/image.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::nbd_server {

struct ExportOptions {
  std::string name = {};         ///< at most 4096 bytes; "" is what a client gets that names nothing
  std::string description = {};  ///< for people, in NBD_OPT_LIST; at most 4096 bytes
  bool writable = false;         ///< needs a writable device
  std::size_t clients_max = 0;   ///< sessions at once; 0: no bound but the server's
  bool requires_tls = false;     ///< clients without TLS are told to use it and do not see it listed
  /// Clients let in, by certificate name (CN or whole DN) or PSK user; empty: everybody. Needs TLS.
  std::vector<std::string> allow = {};
  /// Offered as qemu:dirty-bitmap:NAME. They belong to the image, which outlives the export's use.
  std::vector<std::shared_ptr<BitmapView>> bitmaps = {};
};

/// Thread: any. Lifetime: shared by the table and the sessions that use it.
class Export {
 public:
  /// `device` stands behind a CheckedDevice. Its owner closes it after remove() or Server::stop().
  /// Errors: invalid_argument (name or description too long, TLS rules without sense), read_only.
  static Result<std::shared_ptr<Export>> make(ExportOptions options, std::shared_ptr<BlockDevice> device);
  Export(ExportOptions options, std::shared_ptr<BlockDevice> device);  // use make()
  ~Export();

  const ExportOptions& options() const noexcept { return options_; }
  const std::string& name() const noexcept { return options_.name; }
  /// Fixed when the export is made: a device that is swapped in has the same size.
  std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  /// Capabilities promised to clients, those of the first device.
  const DeviceInfo& info() const noexcept { return info_; }
  /// Transmission flags as far as the export decides them (not DF, not BLOCK_STATUS_PAYLOAD).
  std::uint16_t transmission_flags() const noexcept { return flags_; }

  struct Attachment;
  /// The device for as long as this is held; what was held stays usable while another takes its place.
  class Hold {
   public:
    Hold() = default;
    explicit Hold(std::shared_ptr<Attachment> attachment) : attachment_(std::move(attachment)) {}
    BlockDevice& device() const noexcept;
    explicit operator bool() const noexcept { return attachment_ != nullptr; }

   private:
    std::shared_ptr<Attachment> attachment_;
  };
  Hold hold() const;

  /// New requests go to `next`; returns the old device when the last request that uses it has ended.
  /// Errors: mismatch (another size, fewer capabilities than were promised), cancelled (the swap stands, the
  /// old device may still be in use).
  Task<Result<std::shared_ptr<BlockDevice>>> swap_device(std::shared_ptr<BlockDevice> next);

  /// Counts a session in; false when the export is full. leave() counts it out.
  bool try_enter() noexcept;
  void leave() noexcept;
  std::size_t clients() const noexcept { return clients_.load(); }

 private:
  const ExportOptions options_;
  const std::uint64_t size_bytes_;
  const DeviceInfo info_;
  const std::uint16_t flags_;
  mutable std::mutex guard_;
  std::shared_ptr<Attachment> attachment_;
  std::atomic<std::size_t> clients_ = 0;
};
using ExportPtr = std::shared_ptr<Export>;

/// Thread: any.
class ExportTable {
 public:
  static constexpr std::size_t exports_max = 4096;
  /// Errors: already_exists, too_large.
  Result<void> add(ExportPtr added);
  /// New clients no longer find it; those inside stay until Server::disconnect() or they leave.
  ExportPtr remove(std::string_view name);
  /// The export of that name. An empty name that no export has means the first one added.
  ExportPtr find(std::string_view name) const;
  /// In the order they were added.
  std::vector<ExportPtr> all() const;

 private:
  mutable std::mutex guard_;
  std::vector<ExportPtr> exports_;
};

}  // namespace diskferry::nbd_server
