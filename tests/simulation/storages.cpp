#include "tests/simulation/storages.hpp"

#include "drivers/registry.hpp"

#include <mutex>

namespace diskferry::sim {

Storages* Storages::current = nullptr;

namespace {
/// A disk that is counted while it is open.
class OpenDisk final : public Disk {
 public:
  OpenDisk(World& world, Volume& volume, std::string name, DeviceInfo info)
      : Disk(world, volume.platter, std::move(name), std::move(info)), volume_(volume) {
    ++volume_.open;
  }
  ~OpenDisk() override { close_once(); }
  Task<Result<void>> close() override {
    close_once();
    co_return Result<void>{};
  }

 private:
  void close_once() {
    if (is_open_) --volume_.open;
    is_open_ = false;
  }
  Volume& volume_;
  bool is_open_ = true;
};

std::string name_of(const ImageUri& uri) {
  return std::string(uri.path().substr(uri.path().find_first_not_of('/')));
}
}  // namespace

Storages::Storages(World& world) : world_(world) {
  static const Driver driver{.scheme = "sim",
                             .aliases = {},
                             .summary = "a simulated storage",
                             .keys = {},
                             .open = &Storages::open,
                             .create = &Storages::create,
                             .look = &Storages::look,
                             .remove = &Storages::remove};
  static std::once_flag added;
  std::call_once(added, [] { add_driver(driver); });
  current = this;
}
Storages::~Storages() {
  current = nullptr;
}

Volume& Storages::add(const std::string& name, std::unique_ptr<Volume> volume) {
  return *(volumes_[name] = std::move(volume));
}
Volume* Storages::find(const std::string& name) {
  const auto found = volumes_.find(name);
  return found == volumes_.end() ? nullptr : found->second.get();
}

void Storages::die() {
  is_dead_ = true;
  for (const auto& [name, volume] : volumes_) ++volume->platter.openings;
}

Task<Result<Volume*>> Storages::reach(ImageUri uri, const char* verb, std::function<void(Volume&)> effect) {
  Volume* const volume = find(name_of(uri));
  const std::string name = uri.to_string();
  if (volume != nullptr) volume->platter.link.note_request();
  while (true) {
    const bool is_turn =
        co_await world_.turn([=, this] { return volume == nullptr || !volume->platter.is_hung || is_dead_; });
    if (!is_turn) co_return unexpected(cancelled_error(verb, name));
    if (is_dead_ || volume == nullptr || volume->platter.is_gone)
      co_return unexpected(fail(ErrorKind::gone, verb, name));
    if (!volume->platter.link.is_cut()) break;
    world_.trace(name + " " + verb + " lost");
    const auto late = effect ? std::function<void()>([effect, volume] { effect(*volume); }) : nullptr;
    const auto again =
        co_await volume->platter.link.lose(verb, name, late, !effect, [this] { return is_dead_; });
    if (!again) co_return unexpected(again.error());
  }
  co_return volume;
}

Task<Result<DevicePtr>> Storages::open(DriverContext& context, ImageUri uri, OpenOptions) {
  (void)context;
  Storages& all = *current;
  DISKFERRY_CO_TRY(Volume * volume, co_await all.reach(uri, "open"));
  if (!volume->exists) co_return unexpected(fail(ErrorKind::not_found, "open", uri.to_string()));
  if (volume->may_lose && volume->open == 0 && all.world_.one_in(3)) volume->platter.cut_power(all.world_);
  DeviceInfo info;
  info.block_bytes = 512;
  info.zero = volume->zero;
  info.can_discard = true;
  info.can_report_extents = true;
  volume->last_opening = volume->platter.openings;
  info.starts_zeroed = std::exchange(volume->is_new, false);
  co_return std::make_unique<OpenDisk>(all.world_, *volume, name_of(uri), info);
}

void Storages::make(const ImageUri& uri, Volume& volume) {
  if (volume.open != 0) problem_ = uri.to_string() + " was made anew while it was open";
  volume.exists = true;
  volume.is_new = true;
  ++volume.made;
  std::ranges::fill(volume.platter.current, std::byte{0});
  volume.platter.durable = volume.platter.current;
}

Task<Result<void>> Storages::create(DriverContext& context, ImageUri uri, CreateOptions options) {
  (void)context;
  Storages& all = *current;
  const bool replaces = options.replace;
  DISKFERRY_CO_TRY(Volume * volume, co_await all.reach(uri, "create", [&all, uri, replaces](Volume& late) {
    if (!late.exists || replaces) all.make(uri, late);
  }));
  if (volume->exists && !options.replace)
    co_return unexpected(fail(ErrorKind::already_exists, "create", uri.to_string()));
  if (volume->making_fails) co_return unexpected(fail(*volume->making_fails, "create", uri.to_string()));
  all.make(uri, *volume);
  if (volume->made_fails) co_return unexpected(fail(*volume->made_fails, "create", uri.to_string()));
  co_return Result<void>{};
}

Task<Result<VolumeFacts>> Storages::look(DriverContext& context, ImageUri uri, LookOptions) {
  (void)context;
  DISKFERRY_CO_TRY(const Volume* volume, co_await current->reach(uri, "look"));
  co_return VolumeFacts{
      .exists = volume->exists,
      .can_be_emptied = true,
      .size_bytes = volume->platter.current.size(),
      .block_bytes = 512,
      .identity = volume->exists ? fmt::format("sim|{}|{}", name_of(uri), volume->made) : ""};
}

void Storages::unmake(const ImageUri& uri, Volume& volume) {
  if (volume.open != 0) problem_ = uri.to_string() + " was removed while it was open";
  volume.exists = false;
  test::fill_sectors(volume.platter.current, test::unwritten, 0);
  volume.platter.durable = volume.platter.current;
}

Task<Result<void>> Storages::remove(DriverContext& context, ImageUri uri) {
  (void)context;
  Storages& all = *current;
  DISKFERRY_CO_TRY(Volume * volume,
                   co_await all.reach(uri, "remove", [&all, uri](Volume& late) { all.unmake(uri, late); }));
  if (!volume->exists) co_return unexpected(fail(ErrorKind::not_found, "remove", uri.to_string()));
  all.unmake(uri, *volume);
  co_return Result<void>{};
}

}  // namespace diskferry::sim
