// Exports and their table.
#include "gateway/nbd/export.hpp"

#include "diskferry/assert.hpp"
#include "gateway/nbd/protocol.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::nbd_server {

/// A device while it is, or was, an export's. The last one to let go says so.
struct Export::Attachment {
  explicit Attachment(std::shared_ptr<BlockDevice> attached) : device(std::move(attached)) {}
  ~Attachment() {
    device.reset();
    released->set();
  }
  std::shared_ptr<BlockDevice> device;
  std::shared_ptr<AsyncEvent> released = std::make_shared<AsyncEvent>();
};

namespace {
std::uint16_t flags_of(const ExportOptions& options, const DeviceInfo& info) {
  // FLUSH, FUA and CACHE are always offered: the checking layer in front of every device emulates what it
  // lacks, and on a read-only export they have nothing to do.
  std::uint16_t flags = flag_has_flags | flag_send_flush | flag_send_fua | flag_send_cache;
  if (info.is_rotational) flags |= flag_rotational;
  if (options.writable) {
    flags |= flag_send_write_zeroes;
    if (info.can_discard) flags |= flag_send_trim;
    if (info.zero == ZeroSupport::fast || info.zero == ZeroSupport::unmapping) flags |= flag_send_fast_zero;
  } else {
    flags |= flag_read_only;
  }
  // Readers have nothing to keep coherent; writers may only use several connections where a flush on one
  // covers what was acknowledged on all of them.
  if (options.clients_max != 1 && (!options.writable || info.can_multi_connection))
    flags |= flag_can_multi_conn;
  return flags;
}
}  // namespace

Result<std::shared_ptr<Export>> Export::make(ExportOptions options, std::shared_ptr<BlockDevice> device) {
  const auto refuse = [&](ErrorKind kind, std::string why) {
    return unexpected(fail(kind, "export", printable(options.name.substr(0, 256))).why(std::move(why)));
  };
  if (options.name.size() > string_bytes_max || options.description.size() > string_bytes_max)
    return refuse(ErrorKind::invalid_argument,
                  fmt::format("a name or description of an export has at most {} bytes", string_bytes_max));
  if (options.writable && device->info().is_read_only)
    return refuse(ErrorKind::read_only, "the device was opened for reading only");
  if (!options.allow.empty()) options.requires_tls = true;
  return std::make_shared<Export>(std::move(options), std::move(device));
}

Export::Export(ExportOptions options, std::shared_ptr<BlockDevice> device)
    : options_(std::move(options)),
      size_bytes_(device->size_bytes()),
      info_(device->info()),
      flags_(flags_of(options_, info_)),
      attachment_(std::make_shared<Attachment>(std::move(device))) {}

Export::~Export() = default;

BlockDevice& Export::Hold::device() const noexcept {
  return *attachment_->device;
}

Export::Hold Export::hold() const {
  std::lock_guard lock(guard_);
  return Hold(attachment_);
}

Task<Result<std::shared_ptr<BlockDevice>>> Export::swap_device(std::shared_ptr<BlockDevice> next) {
  const DeviceInfo& info = next->info();
  const bool keeps_promises =
      next->size_bytes() == size_bytes_ && info.block_bytes <= info_.block_bytes &&
      (!options_.writable || !info.is_read_only) &&
      (!options_.writable || info.can_multi_connection || !(flags_ & flag_can_multi_conn));
  if (!keeps_promises)
    co_return unexpected(
        fail(ErrorKind::mismatch, "swap device", options_.name)
            .why("the new device has another size or can do less than clients were promised"));
  auto old = std::make_shared<Attachment>(std::move(next));
  {
    std::lock_guard lock(guard_);
    std::swap(old, attachment_);
  }
  const auto device = old->device;
  const auto released = old->released;
  old.reset();
  DISKFERRY_CO_CHECK(co_await released->wait());
  co_return device;
}

bool Export::try_enter() noexcept {
  std::size_t now = clients_.load();
  do {
    if (options_.clients_max != 0 && now >= options_.clients_max) return false;
  } while (!clients_.compare_exchange_weak(now, now + 1));
  return true;
}

void Export::leave() noexcept {
  const std::size_t before = clients_.fetch_sub(1);
  DISKFERRY_ASSERT(before > 0, "a session leaves an export it never entered");
}

Result<void> ExportTable::add(ExportPtr added) {
  std::lock_guard lock(guard_);
  if (exports_.size() >= exports_max)
    return unexpected(fail(ErrorKind::too_large, "export", printable(added->name()))
                          .why(fmt::format("a server has at most {} exports", exports_max)));
  if (std::ranges::find(exports_, added->name(), &Export::name) != exports_.end())
    return unexpected(fail(ErrorKind::already_exists, "export", printable(added->name()))
                          .why("another image is exported under this name")
                          .remedy("give each image its own --name"));
  exports_.push_back(std::move(added));
  return {};
}

ExportPtr ExportTable::remove(std::string_view name) {
  std::lock_guard lock(guard_);
  const auto found = std::ranges::find(exports_, name, &Export::name);
  if (found == exports_.end()) return nullptr;
  ExportPtr removed = std::move(*found);
  exports_.erase(found);
  return removed;
}

ExportPtr ExportTable::find(std::string_view name) const {
  std::lock_guard lock(guard_);
  const auto found = std::ranges::find(exports_, name, &Export::name);
  if (found != exports_.end()) return *found;
  return name.empty() && !exports_.empty() ? exports_.front() : nullptr;
}

std::vector<ExportPtr> ExportTable::all() const {
  std::lock_guard lock(guard_);
  return exports_;
}

}  // namespace diskferry::nbd_server
