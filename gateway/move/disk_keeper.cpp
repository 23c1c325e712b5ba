#include "gateway/move/disk_keeper.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/domain_disk.hpp"

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
/// A machine that starts reads its disk for longer than this before anything of it matters.
constexpr Duration look_interval = std::chrono::seconds(1);
}  // namespace

DiskKeeper::DiskKeeper(DriverContext& context, DiskExports& exports, std::string libvirt_uri)
    : context_(context),
      exports_(exports),
      libvirt_uri_(std::move(libvirt_uri)),
      group_(context.reactors.front()) {}

void DiskKeeper::start() {
  group_.spawn(keep());
}

Task<void> DiskKeeper::stop() {
  group_.cancel();
  (void)co_await group_.join();
}

Task<Result<void>> DiskKeeper::keep() {
  Result<void> result;
  while (result) {
    if (const auto looked = co_await look(); !looked && looked.error().message() != last_trouble_) {
      last_trouble_ = looked.error().message();
      spdlog::warn("disks of machines: {}", last_trouble_);
    }
    result = co_await context_.clock.sleep_for(look_interval);
  }
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  co_await disconnect();
  co_return Result<void>{};
}

Task<void> DiskKeeper::disconnect() {
  if (libvirt_) co_await libvirt_->close();
  libvirt_.reset();
}

/// What was not seen while there was no connection is looked at anew.
Task<Result<void>> DiskKeeper::have_connection() {
  if (libvirt_) {
    const auto alive = co_await libvirt_->domains();
    if (alive) co_return Result<void>{};
    co_await disconnect();
  }
  known_.clear();
  DISKFERRY_CO_TRY(libvirt_, co_await Libvirt::connect(context_, libvirt_uri_));
  co_return co_await libvirt_->watch([this](const LibvirtEvent& event) {
    if (event.kind == LibvirtEvent::Kind::started) has_started_ = true;
  });
}

Task<Result<void>> DiskKeeper::look() {
  const std::vector<std::string> names = exports_.disk_names();
  if (names.empty()) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await have_connection());
  if (!has_started_.exchange(false) && names == known_) co_return Result<void>{};
  Result<void> result;
  for (const std::string& name : names) {
    auto done = co_await have_waiting(name);
    if (!done && result) result = std::move(done);
  }
  // What failed is tried again.
  if (result) known_ = names;
  if (!result) known_.clear();
  co_return result;
}

Task<Result<void>> DiskKeeper::have_waiting(std::string export_name) {
  const auto colon = export_name.rfind(':');
  if (colon == std::string::npos) co_return Result<void>{};
  DomainDisk disk(context_,
                  {.hypervisor = libvirt_uri_,
                   .domain = export_name.substr(0, colon),
                   .disk = export_name.substr(colon + 1),
                   .target = NbdDiskSource{.socket = exports_.disk_socket(), .export_name = export_name}});
  const auto view = co_await disk.look(false);
  Result<void> done;
  if (view && view->place == DiskPlace::target && is_alive(view->machine)) {
    done = co_await disk.wait_for_gateway();
    if (done) spdlog::info("{}: QEMU waits where the gateway is away", printable(export_name));
  } else if (!view && view.error().kind() != ErrorKind::not_found) {
    done = unexpected(view.error());
  }
  co_await disk.close();
  co_return done;
}

}  // namespace diskferry
