// The exports of a simulated gateway: those of the NBD server, without one.
#pragma once

#include "diskferry/task_group.hpp"
#include "drivers/filters/align.hpp"
#include "drivers/image/image.hpp"
#include "gateway/move/endpoints.hpp"
#include "gateway/nbd/export.hpp"
#include "tests/simulation/world.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>

namespace diskferry::sim {

class Exports final : public Endpoints {
 public:
  explicit Exports(World& world) : world_(world) {}

  unsigned refuse_one_in = 0;  ///< so many borrowings fail
  std::function<void()> on_swapped{};

  Task<Result<void>> open(std::string name, std::string uri) {
    DISKFERRY_CO_TRY(const ImageUri image_uri, ImageUri::parse(uri));
    DISKFERRY_CO_TRY(const Image image,
                     co_await open_image(world_.context(), image_uri, {.format = "raw", .writable = true}));
    auto device = with_byte_granularity(image.shared_device());
    DISKFERRY_CO_TRY(auto made, nbd_server::Export::make({.name = name, .writable = true}, device));
    entries_[name] = {
        .offered = std::move(made),
        .lent = {.device = device, .uri = uri, .format = "raw", .configured = "", .storages = {uri}}};
    co_return Result<void>{};
  }
  nbd_server::Export::Hold use(const std::string& name) { return entries_.at(name).offered->hold(); }
  const std::string& place(const std::string& name) { return entries_.at(name).lent.uri; }

  Task<void> close_all() {
    for (auto& [name, entry] : entries_) {
      entry.offered.reset();
      if (entry.lent.device) (void)co_await entry.lent.device->close();
    }
    entries_.clear();
  }

  Result<Lent> borrow(const std::string& name) override {
    Entry& entry = entries_.at(name);
    if (refuse_one_in != 0 && world_.one_in(refuse_one_in))
      return unexpected(fail(ErrorKind::io, "borrow", name));
    if (!entry.lent.device) return unexpected(fail(ErrorKind::in_use, "borrow", name));
    Lent lent = entry.lent;
    entry.lent.device = nullptr;
    return lent;
  }
  Task<Result<void>> put(std::string name, std::shared_ptr<BlockDevice> device) override {
    TaskGroup own(world_.executor());
    own.spawn(swap(entries_.at(name).offered, std::move(device)));
    co_return co_await own.join();
  }
  void give_back(const std::string& name, Lent lent) override { entries_.at(name).lent = std::move(lent); }

 private:
  /// Not cut short. The process may die on either side of it.
  Task<Result<void>> swap(nbd_server::ExportPtr in, std::shared_ptr<BlockDevice> device) {
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    (void)co_await world_.turn([] { return true; });
    auto swapped = co_await in->swap_device(std::move(device));
    if (on_swapped) on_swapped();
    // Clients may come in before whoever asked for it knows.
    const auto may_know = std::make_shared<bool>(false);
    world_.after_steps(1 + world_.random(8), [may_know] { *may_know = true; });
    (void)co_await world_.turn([may_know] { return *may_know; });
    if (!swapped) co_return unexpected(std::move(swapped).error());
    co_return Result<void>{};
  }
  struct Entry {
    nbd_server::ExportPtr offered{};
    Lent lent{};
  };
  World& world_;
  std::map<std::string, Entry> entries_;
};

}  // namespace diskferry::sim
