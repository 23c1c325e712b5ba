// Exports by name. A name is taken before its image is opened, so that two calls cannot open the same twice.
#include "diskferry/assert.hpp"
#include "drivers/checked_device.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/filters/write_through.hpp"
#include "drivers/image/image.hpp"
#include "gateway/daemon/exports_state.hpp"
#include "gateway/jobs/job.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry::daemon {
namespace {

constexpr std::size_t name_bytes_max = 4096;  // the bound of NBD

Result<ImageUri> image_of(const control::ExportRequest& request) {
  const auto wrong = [&](std::string why) {
    return unexpected(
        fail(ErrorKind::invalid_argument, "export", printable(request.name)).why(std::move(why)));
  };
  if (request.name.empty() || request.name.size() > name_bytes_max)
    return wrong(fmt::format("a name has 1 to {} bytes", name_bytes_max));
  DISKFERRY_TRY(ImageUri uri, ImageUri::parse(request.image));
  // The daemon's own folder means nothing to whoever asks.
  if (uri.is_file() && !uri.path().starts_with('/')) return wrong("the image is an absolute path or a URI");
  return uri;
}

}  // namespace

Exports::Exports(DriverContext& context, nbd_server::Server& server, DiskServer& disks)
    : state_(new State{.context = context,
                       .server = server,
                       .disks = disks,
                       .trying = TaskGroup(context.reactors.front())}) {}
Exports::~Exports() {
  DISKFERRY_ASSERT(state_->entries.empty(), "exports are destroyed with images open");
}

/// The image open and an export made of it, not offered yet.
Task<Result<std::shared_ptr<Exports::Entry>>> Exports::open(control::ExportRequest request,
                                                            const Addition& addition) {
  DISKFERRY_CO_TRY(const ImageUri uri, image_of(request));
  const auto keeps = std::make_shared<std::atomic<bool>>(true);
  ImageOpenOptions options{.format = request.format,
                           .writable = request.writable,
                           .keep = KeepOptions{.is_on = keeps, .on_reopened = log_of_reopened(request.name)}};
  // What a guest may write to is never probed: it could make its raw disk look like something else.
  if (request.writable && options.format.empty()) options.format = format_for_target(uri);
  auto opened = co_await open_image(state_->context, uri, options);
  if (!opened && opened.error().kind() == ErrorKind::in_use && addition.is_taken_over) {
    spdlog::info("export {}: without a lock, beside the host that it goes to", printable(request.name));
    options.without_lock = true;
    opened = co_await open_image(state_->context, uri, options);
  }
  DISKFERRY_CO_TRY(const Image image, std::move(opened));
  std::shared_ptr<BlockDevice> device = image.shared_device();
  if (addition.size_bytes != 0) {
    auto part = slice_of(device, {0, addition.size_bytes});
    if (!part) {
      (void)co_await device->close();
      co_return unexpected(std::move(part).error());
    }
    device = *std::move(part);
  }
  device = with_byte_granularity(std::move(device));
  auto made = nbd_server::Export::make({.name = request.name,
                                        .description = request.description,
                                        .writable = request.writable,
                                        .requires_tls = request.requires_tls,
                                        .allow = request.allow},
                                       device);
  auto entry = std::make_shared<Entry>();
  if (made) {
    request.format = image.layers().front().format;
    entry->shown_image = uri.without_secrets();
    entry->request = std::move(request);
    entry->offered = std::move(*made);
    entry->device = device;
    entry->keeps_unflushed = keeps;
    for (const ImageUri& storage : image.storages()) entry->storages.push_back(storage.to_uri_with_secrets());
    co_return entry;
  }
  (void)co_await device->close();
  co_return unexpected(std::move(made).error());
}

nbd_server::Server& Exports::server_of(const Entry& entry) const {
  return entry.kind == Kind::disk ? state_->disks.server() : state_->server;
}

/// As the configuration is checked: nobody could use it.
Result<void> Exports::check_protection(const control::ExportRequest& request) const {
  const nbd_server::TlsOptions& tls = state_->server.tls();
  const auto refused = [&](std::string why, std::string remedy) {
    return unexpected(fail(ErrorKind::unsupported, "export", printable(request.name))
                          .why(std::move(why))
                          .remedy(std::move(remedy)));
  };
  if (tls.mode == nbd_server::TlsMode::off && (request.requires_tls || !request.allow.empty()))
    return refused("it is to be protected, and this gateway does without TLS",
                   "set nbd.tls in the gateway's configuration");
  if (!request.allow.empty() && !tls.verify_peer && tls.psk_file.empty())
    return refused("this gateway does not know its clients by name",
                   "set nbd.verify-peer or nbd.psk-file in its configuration");
  return {};
}

Task<Result<control::ExportDescription>> Exports::add(control::ExportRequest request) {
  DISKFERRY_CO_CHECK(check_protection(request));
  std::string configured = request.image;
  co_return co_await add_as(std::move(request), {.configured = std::move(configured)});
}

Task<Result<control::ExportDescription>> Exports::open_configured(control::ExportRequest request,
                                                                  std::uint64_t size_bytes,
                                                                  std::string configured) {
  if (configured.empty()) configured = request.image;
  return add_as(std::move(request), {.kind = Kind::configured,
                                     .is_offered_later = true,
                                     .size_bytes = size_bytes,
                                     .configured = std::move(configured)});
}

namespace {
control::ExportRequest request_of(const EndpointRecord& record) {
  return {.name = record.name,
          .image = record.uri,
          .format = record.format,
          .description = "disk of a machine",
          .writable = true};
}
}  // namespace

Task<Result<control::ExportDescription>> Exports::open_disk(EndpointRecord record, bool is_taken_over) {
  return add_as(request_of(record), {.kind = Kind::disk,
                                     .is_offered_later = true,
                                     .is_taken_over = is_taken_over,
                                     .size_bytes = record.size_bytes});
}

Task<Result<void>> Exports::offer_disk(EndpointRecord record) {
  DISKFERRY_CO_CHECK(co_await state_->disks.have_listening());
  DISKFERRY_CO_CHECK(
      co_await add_as(request_of(record), {.kind = Kind::disk, .size_bytes = record.size_bytes}));
  co_return Result<void>{};
}

Task<Result<void>> Exports::withdraw_disk(std::string name) {
  return remove_now(std::move(name));
}

bool Exports::has_export(const std::string& name) const {
  std::lock_guard lock(state_->guard);
  return state_->entries.contains(name);
}

std::optional<ExportStorage> Exports::storage_of(const std::string& name) const {
  std::lock_guard lock(state_->guard);
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) return std::nullopt;
  const Entry& entry = *found->second;
  return ExportStorage{.name = name,
                       .uri = entry.request.image,
                       .format = entry.request.format,
                       .storages = entry.storages.empty() ? std::vector{entry.request.image} : entry.storages,
                       .is_disk = entry.kind == Kind::disk,
                       .is_settled = (entry.offered || !entry.waiting.empty()) && !entry.is_lent};
}

std::vector<std::string> Exports::disk_names() const {
  std::vector<std::string> names;
  std::lock_guard lock(state_->guard);
  for (const auto& [name, entry] : state_->entries)
    if (entry->kind == Kind::disk && entry->offered) names.push_back(name);
  return names;
}

bool Exports::has_disks() const {
  std::lock_guard lock(state_->guard);
  return std::ranges::any_of(state_->entries,
                             [](const auto& each) { return each.second->kind == Kind::disk; });
}

bool Exports::is_disk(const std::string& name) const {
  std::lock_guard lock(state_->guard);
  const auto found = state_->entries.find(name);
  return found != state_->entries.end() && found->second->kind == Kind::disk;
}

const std::string& Exports::disk_socket() const noexcept {
  return state_->disks.socket();
}

/// Sockets alone say for sure that it is this gateway.
std::string Exports::export_at(const ImageUri& storage) const {
  const auto socket = storage.query("socket");
  if (!storage.scheme().starts_with("nbd") || !socket || storage.path().empty()) return {};
  std::string name = storage.path().substr(1);
  std::lock_guard lock(state_->guard);
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) return {};
  if (found->second->kind == Kind::disk) return *socket == disk_socket() ? name : std::string();
  for (const std::string& address : state_->server.addresses()) {
    const auto uri = ImageUri::parse(address);
    if (uri && uri->query("socket") == socket) return name;
  }
  return {};
}

void Exports::offer_configured() {
  std::lock_guard lock(state_->guard);
  for (const auto& [name, entry] : state_->entries) {
    if (!entry->is_there_again() || !entry->offered) continue;
    if (auto added = server_of(*entry).exports().add(entry->offered); !added)
      spdlog::error("export {} is left out: {}", printable(name), added.error().message());
  }
}

Task<Result<control::ExportDescription>> Exports::add_as(control::ExportRequest request, Addition addition) {
  const std::string name = request.name;
  {
    std::lock_guard lock(state_->guard);
    if (!state_->entries.emplace(name, std::make_shared<Entry>()).second)
      co_return unexpected(fail(ErrorKind::already_exists, "export", printable(name))
                               .why("there is an export of this name")
                               .remedy("'diskferry exports' lists them"));
  }
  auto opened = co_await open(request, addition);
  Result<void> added = opened ? Result<void>() : unexpected(opened.error());
  if (opened) (*opened)->kind = addition.kind;
  if (opened && !addition.is_offered_later) added = server_of(**opened).exports().add((*opened)->offered);
  if (!added && opened) (void)co_await (*opened)->device->close();
  std::lock_guard lock(state_->guard);
  if (!added) {
    // What is there after a restart is so also where its storage comes later.
    if (addition.is_offered_later && added.error().kind() != ErrorKind::cancelled)
      state_->entries[name] = waiting_entry(std::move(request), std::move(addition), added.error());
    else
      state_->entries.erase(name);
    co_return unexpected(std::move(added).error());
  }
  (*opened)->configured = std::move(addition.configured);
  state_->entries[name] = *opened;
  co_return describe(**opened);
}

// --- what jobs move ---------------------------------------------------------------------------------------

Result<Endpoints::Lent> Exports::borrow(const std::string& name) {
  const auto refused = [&](ErrorKind kind, std::string why, std::string remedy) {
    return unexpected(
        fail(kind, "replace the storage of", printable(name)).why(std::move(why)).remedy(std::move(remedy)));
  };
  std::lock_guard lock(state_->guard);
  const auto found = state_->entries.find(name);
  if (found != state_->entries.end() && !found->second->waiting.empty())
    return refused(ErrorKind::gone, "its storage is not there: " + found->second->waiting,
                   "say it again once 'diskferry exports' shows its size");
  if (found == state_->entries.end() || !found->second->offered)
    return refused(ErrorKind::not_found, "there is no export of this name", "'diskferry exports' lists them");
  Entry& entry = *found->second;
  if (entry.is_lent) return refused(ErrorKind::in_use, "a job has it", "wait for that job, or cancel it");
  if (!entry.is_there_again())
    return refused(ErrorKind::unsupported, "it would not be there again when the gateway is restarted",
                   "declare it in the gateway's configuration ([[export]])");
  if (!entry.request.writable)
    return refused(ErrorKind::read_only, "it is exported read-only", "copy it with 'diskferry copy'");
  // Where an export is gets written down.
  if (const auto uri = ImageUri::parse(entry.request.image);
      uri && !uri->is_file() && uri->to_string() != uri->to_uri_with_secrets())
    return refused(ErrorKind::unsupported, "there is a secret in its image's name",
                   "have the configuration name a file with it");
  entry.is_lent = true;
  return Lent{.device = std::exchange(entry.device, nullptr),
              .uri = entry.request.image,
              .format = entry.request.format,
              .configured = entry.configured,
              .storages = entry.storages,
              .keeps_unflushed = entry.keeps_unflushed};
}

Result<std::shared_ptr<Exports::Entry>> Exports::lent_entry(const std::string& name) const {
  std::lock_guard lock(state_->guard);
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end() || !found->second->is_lent)
    return unexpected(fail(ErrorKind::internal, "replace the storage of", printable(name)));
  return found->second;
}

namespace {
/// Not cut short: what was swapped in stays, and who asked has to know.
Task<Result<void>> swap_all_of_it(nbd_server::ExportPtr in, std::shared_ptr<BlockDevice> device) {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  auto swapped = co_await in->swap_device(std::move(device));
  if (!swapped) co_return unexpected(std::move(swapped).error());
  co_return Result<void>{};
}
}  // namespace

Task<Result<void>> Exports::put(std::string name, std::shared_ptr<BlockDevice> device) {
  DISKFERRY_CO_TRY(const auto entry, lent_entry(name));
  TaskGroup own(co_await boost::asio::this_coro::executor);
  own.spawn(swap_all_of_it(entry->offered, std::move(device)));
  co_return co_await own.join();
}

Task<Result<void>> Exports::write_through(std::string name, bool is_on) {
  std::shared_ptr<BlockDevice> device;
  nbd_server::ExportPtr offered;
  {
    std::lock_guard lock(state_->guard);
    const auto found = state_->entries.find(name);
    if (found == state_->entries.end() || !found->second->offered || !found->second->device)
      co_return unexpected(fail(ErrorKind::not_found, "make writes durable", printable(name)));
    device = found->second->device;
    offered = found->second->offered;
  }
  std::shared_ptr<BlockDevice> next = device;
  if (is_on) next = checked(make_write_through_device(device));
  TaskGroup own(co_await boost::asio::this_coro::executor);
  own.spawn(swap_all_of_it(offered, std::move(next)));
  DISKFERRY_CO_CHECK(co_await own.join());
  if (is_on) co_return co_await device->flush();
  co_return Result<void>{};
}

void Exports::give_back(const std::string& name, Lent lent) {
  const auto entry = lent_entry(name);
  DISKFERRY_ASSERT(entry.has_value(), "what is given back was lent");
  std::lock_guard lock(state_->guard);
  Entry& back = **entry;
  back.is_lent = false;
  back.device = std::move(lent.device);
  back.request.image = std::move(lent.uri);
  back.request.format = std::move(lent.format);
  back.storages = std::move(lent.storages);
  back.keeps_unflushed = std::move(lent.keeps_unflushed);
  if (const auto uri = ImageUri::parse(back.request.image)) back.shown_image = uri->without_secrets();
}

control::ExportDescription Exports::describe(const Entry& entry) const {
  return {.name = entry.request.name,
          .image = entry.shown_image,
          .format = entry.request.format,
          .description = entry.request.description,
          .writable = entry.request.writable,
          .requires_tls = entry.request.requires_tls,
          .allow = entry.request.allow,
          .size_bytes = entry.offered ? entry.offered->size_bytes() : entry.size_bytes,
          .clients = entry.offered ? entry.offered->clients() : 0,
          .is_configured = entry.is_there_again(),
          .addresses = server_of(entry).addresses(entry.request.name),
          .waiting = entry.waiting};
}

std::vector<control::ExportDescription> Exports::list() const {
  std::vector<control::ExportDescription> listed;
  std::lock_guard lock(state_->guard);
  for (const auto& [name, entry] : state_->entries) {
    if (entry->offered || !entry->waiting.empty()) listed.push_back(describe(*entry));
  }
  return listed;
}

Task<Result<void>> Exports::remove(std::string name) {
  {
    std::lock_guard lock(state_->guard);
    const auto found = state_->entries.find(name);
    if (found != state_->entries.end() && found->second->kind == Kind::disk && found->second->offered &&
        found->second->offered->clients() > 0)
      co_return unexpected(
          fail(ErrorKind::in_use, "remove export", printable(name))
              .why("it is the disk of a machine that runs")
              .remedy("shut the machine off, or have it copy the disk elsewhere (virsh blockcopy --pivot)"));
  }
  co_return co_await remove_now(std::move(name));
}

Task<Result<void>> Exports::remove_now(std::string name) {
  std::shared_ptr<Entry> entry;
  nbd_server::ExportPtr offered;
  {
    std::lock_guard lock(state_->guard);
    const auto found = state_->entries.find(name);
    if (found == state_->entries.end())
      co_return unexpected(fail(ErrorKind::not_found, "remove export", printable(name))
                               .why("there is no export of this name")
                               .remedy("'diskferry exports' lists them"));
    entry = found->second;
    if (entry->is_lent)
      co_return unexpected(fail(ErrorKind::in_use, "remove export", printable(name))
                               .why("a job is replacing its storage")
                               .remedy("wait for that job, or cancel it"));
    // What is about to open its storage does so before it is gone, or not at all.
    if (entry->is_tried_now)
      co_return unexpected(fail(ErrorKind::in_use, "remove export", printable(name))
                               .why("its storage is just being opened")
                               .remedy("say it again in a moment"));
    if (!entry->waiting.empty()) {
      state_->entries.erase(found);
      co_return Result<void>{};
    }
    offered = std::exchange(entry->offered, nullptr);
  }
  if (!offered)
    co_return unexpected(fail(ErrorKind::in_use, "remove export", printable(name))
                             .why("it is being added or removed already"));
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  (void)server_of(*entry).exports().remove(name);
  auto result = co_await server_of(*entry).disconnect(offered);
  if (result && entry->request.writable) result = co_await entry->device->flush();
  auto closed = co_await entry->device->close();
  if (result) result = std::move(closed);
  std::lock_guard lock(state_->guard);
  state_->entries.erase(name);
  co_return result;
}

void Exports::stop_waiting() {
  std::lock_guard lock(state_->guard);
  for (const auto& [name, entry] : state_->entries) {
    if (entry->offered && entry->device) entry->device->stop_waiting();
  }
}

Task<Result<void>> Exports::close_all() {
  std::map<std::string, std::shared_ptr<Entry>> entries;
  {
    std::lock_guard lock(state_->guard);
    entries.swap(state_->entries);
  }
  Result<void> result;
  for (const auto& [name, entry] : entries) {
    if (!entry->device) continue;
    auto closed = co_await entry->device->close();
    if (!closed && result) result = std::move(closed);
  }
  co_return result;
}

}  // namespace diskferry::daemon
