// The table of drivers.
#include "drivers/registry.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/file/file_driver.hpp"
#include "drivers/foreign/foreign.hpp"
#include "drivers/gluster/gluster_driver.hpp"
#include "drivers/iscsi/iscsi_driver.hpp"
#include "drivers/memory/memory_device.hpp"
#include "drivers/nbd/nbd_driver.hpp"
#include "drivers/nfs/nfs_driver.hpp"
#include "drivers/rbd/rbd_driver.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {
// One line a driver.
constexpr std::array drivers{&file_driver, &gluster_driver, &http_driver, &iscsi_driver, &memory_driver,
                             &nbd_driver,  &nfs_driver,     &rbd_driver,  &ssh_driver};

const Driver* added_driver = nullptr;

bool serves(const Driver& driver, std::string_view scheme) {
  return driver.scheme == scheme || std::ranges::find(driver.aliases, scheme) != driver.aliases.end();
}
}  // namespace

void add_driver(const Driver& driver) {
  added_driver = &driver;
}

std::span<const Driver* const> all_drivers() {
  return drivers;
}

Result<const Driver*> find_driver(const ImageUri& uri) {
  for (const Driver* driver : drivers) {
    if (serves(*driver, uri.scheme())) return driver;
  }
  if (added_driver != nullptr && serves(*added_driver, uri.scheme())) return added_driver;
  std::string known;
  for (const Driver* driver : drivers) known += (known.empty() ? "" : ", ") + std::string(driver->scheme);
  return unexpected(fail(ErrorKind::unsupported, "open", uri.to_string())
                        .why(fmt::format("no driver for '{}://'; there are {}", uri.scheme(), known)));
}

namespace {
Result<void> check_keys(const Driver& driver, const ImageUri& uri) {
  for (const auto& [key, value] : uri.queries()) {
    if (std::ranges::find(driver.keys, key, &DriverKey::name) != driver.keys.end()) continue;
    std::string known;
    for (const DriverKey& one : driver.keys) known += (known.empty() ? "" : ", ") + std::string(one.name);
    return unexpected(fail(ErrorKind::invalid_argument, "open", uri.to_string())
                          .why(fmt::format("unknown key '{}'; {} takes {}", printable(key), driver.scheme,
                                           known.empty() ? "none" : known)));
  }
  return {};
}
}  // namespace

Task<Result<DevicePtr>> open_storage(DriverContext& context, ImageUri uri, OpenOptions options) {
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(uri));
  DISKFERRY_CO_CHECK(check_keys(*driver, uri));
  DISKFERRY_CO_TRY(auto device, co_await driver->open(context, std::move(uri), options));
  co_return checked(std::move(device));
}

Task<Result<void>> create_storage(DriverContext& context, ImageUri uri, CreateOptions options) {
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(uri));
  DISKFERRY_CO_CHECK(check_keys(*driver, uri));
  if (driver->create == nullptr)
    co_return unexpected(fail(ErrorKind::unsupported, "create", uri.to_string())
                             .why(fmt::format("{} volumes cannot be created from here", driver->scheme))
                             .remedy("create it at the server, then name it with --no-create"));
  co_return co_await driver->create(context, std::move(uri), options);
}

Task<Result<VolumeFacts>> look_at_volume(DriverContext& context, ImageUri uri, LookOptions options) {
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(uri));
  DISKFERRY_CO_CHECK(check_keys(*driver, uri));
  if (driver->look == nullptr) co_return VolumeFacts{.exists = driver->create == nullptr};
  co_return co_await driver->look(context, std::move(uri), options);
}

}  // namespace diskferry
