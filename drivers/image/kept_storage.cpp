// See the header.
#include "drivers/image/kept_storage.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/filters/retry.hpp"
#include "drivers/registry.hpp"

#include <optional>
#include <utility>

#include <climits>

namespace diskferry {
namespace {

/// A driver waits for its server before it says that it is gone; this comes after that.
constexpr Duration opening_limit = std::chrono::minutes(1);

Task<Result<DevicePtr>> open_again(DriverContext& context, ImageUri uri, OpenOptions options,
                                   std::optional<std::string> identity) {
  if (identity) {
    DISKFERRY_CO_TRY(const VolumeFacts now, co_await look_at_volume(context, uri, {}));
    if (now.identity != *identity)
      co_return unexpected(fail(ErrorKind::mismatch, "open again", uri.to_string())
                               .why("another volume has come to be under its name")
                               .remedy("put the one back that was there"));
  }
  co_return co_await open_storage(context, std::move(uri), std::move(options));
}

}  // namespace

Task<Result<DevicePtr>> open_kept_storage(DriverContext& context, ImageUri uri, OpenOptions options,
                                          KeepOptions keep) {
  DISKFERRY_CO_TRY(auto device, co_await open_storage(context, uri, options));
  if (!device->info().may_lose_unflushed) co_return device;
  // One that cannot be looked at while it is open (a target that lets us in once only) is known by its name.
  std::optional<std::string> identity;
  if (auto facts = co_await look_at_volume(context, uri, {})) identity = std::move(facts->identity);
  RetryPolicy policy{.attempts_max = UINT_MAX,
                     .limit = opening_limit,
                     .repeats_failures = false,
                     .keep_bytes_max = kept_bytes_max,
                     .is_on = std::move(keep.is_on)};
  if (keep.on_reopened)
    policy.on_reopened = [told = std::move(keep.on_reopened), name = uri.to_string()](std::uint64_t bytes) {
      told(name, bytes);
    };
  Reopen reopen = [&context, uri = std::move(uri), options = std::move(options),
                   identity = std::move(identity)] { return open_again(context, uri, options, identity); };
  co_return checked(
      make_retry_device(std::move(device), std::move(reopen), std::move(policy), context.clock));
}

}  // namespace diskferry
