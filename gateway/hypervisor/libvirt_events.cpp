// Lifecycle events: from libvirt's loop to whoever watches.
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"
#include "gateway/hypervisor/libvirt_event_names.hpp"

#include <bit>
#include <chrono>
#include <tuple>

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
using WatcherPtr = std::shared_ptr<LibvirtWatcher>;

int tell(virConnectPtr, virDomainPtr domain, int event, int detail, void* opaque) {
  const auto& watcher = *static_cast<WatcherPtr*>(opaque);
  const char* const name = virDomainGetName(domain);
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const LibvirtEvent told{
      .kind = event_kind(event),
      .domain = name == nullptr ? "" : name,
      .detail = event_text(event, detail),
      .at_ns = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count())};
  std::lock_guard lock(watcher->guard);
  if (watcher->handler) watcher->handler(told);
  return 0;
}

Result<void> start_watching(LibvirtConnection& shared, virConnectPtr connection, const WatcherPtr& watcher) {
  // libvirt's from the registration on, which frees it when the callback is gone.
  auto owned = std::make_unique<WatcherPtr>(watcher);
  // One registration takes callbacks of many types under one, which a plain cast would be warned of.
  const auto callback = std::bit_cast<virConnectDomainEventGenericCallback>(&tell);
  const int id = virConnectDomainEventRegisterAny(
      connection, nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE, callback, owned.get(),
      [](void* opaque) { delete static_cast<WatcherPtr*>(opaque); });
  if (id < 0) return unexpected(libvirt_error(connection, "watch", shared.uri));
  std::ignore = owned.release();
  std::lock_guard lock(shared.watchers_guard);
  shared.watchers.emplace_back(id, watcher);
  return {};
}
}  // namespace

void LibvirtConnection::stop_watching(_virConnect* closing) noexcept {
  std::lock_guard lock(watchers_guard);
  for (auto& [id, watcher] : watchers) {
    (void)virConnectDomainEventDeregisterAny(closing, id);
    // The loop may be in the middle of telling: this waits for it, and nothing is told afterwards.
    std::lock_guard telling(watcher->guard);
    watcher->handler = nullptr;
  }
  watchers.clear();
}

Task<Result<void>> Libvirt::watch(std::function<void(const LibvirtEvent&)> handler) {
  auto watcher = std::make_shared<LibvirtWatcher>();
  watcher->handler = std::move(handler);
  return connection_->call<void>({.operation = "watch", .object = connection_->uri},
                                 [shared = connection_, watcher = std::move(watcher)](auto* connection) {
                                   return start_watching(*shared, connection, watcher);
                                 });
}

}  // namespace diskferry
