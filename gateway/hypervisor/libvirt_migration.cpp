// The one long call: a migration, and its abort. libvirt has no call that waits for an abort, and one that
// comes before its job has begun is refused; so it is repeated until the migration has ended.
#include "gateway/hypervisor/libvirt_migration.hpp"

#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"

#include <chrono>
#include <mutex>

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
constexpr Duration abort_interval = std::chrono::milliseconds(250);
/// After this many tries the abort is given up (post-copy cannot be aborted) and only the end is waited for.
constexpr int abort_tries_max = 480;

/// A migration that runs, as the tasks of migrate() share it.
struct Running {
  LibvirtConnection& connection;
  const std::string domain;
  std::mutex guard;  // of all below
  WaitQueue waiting{};
  bool has_ended = false;
  bool abort_was_taken = false;
  Result<void> result{};
};

Result<void> call_libvirt(virConnectPtr connection, virDomainPtr domain, const LibvirtMigration& wanted) {
  LibvirtParameters parameters;
  add_migration_parameters(wanted, parameters);
  return check_libvirt(virDomainMigrateToURI3(domain, wanted.destination.c_str(), parameters.data(),
                                              parameters.size(), migration_flags(wanted)),
                       connection, "migrate", domain);
}

Task<Result<void>> migrate_and_note(Running& running, LibvirtMigration wanted) {
  auto result = co_await running.connection.on_domain<void>(
      {.operation = "migrate", .object = running.domain, .limit = Duration::max()},
      [wanted = std::move(wanted)](auto* connection, auto* domain) {
        return call_libvirt(connection, domain, wanted);
      });
  std::lock_guard lock(running.guard);
  running.result = std::move(result);
  running.has_ended = true;
  running.waiting.wake_all();
  co_return Result<void>{};
}

Task<Result<void>> abort_until_ended(Running& running) {
  for (int i = 0; i < abort_tries_max; ++i) {
    const auto taken = co_await running.connection.on_domain<void>(
        {.operation = "abort", .object = running.domain}, [](auto* connection, auto* domain) {
          return check_libvirt(virDomainAbortJob(domain), connection, "abort", domain);
        });
    {
      std::lock_guard lock(running.guard);
      running.abort_was_taken = running.abort_was_taken || taken;
      if (running.has_ended) break;
    }
    DISKFERRY_CO_CHECK(co_await running.connection.context.clock.sleep_for(abort_interval));
  }
  co_return Result<void>{};
}

/// Whether the migration ended; false when this task was asked to stop before that.
Task<bool> wait_for_end(Running& running) {
  std::unique_lock lock(running.guard);
  if (running.has_ended) co_return true;
  (void)co_await running.waiting.wait(lock);
  lock.lock();
  co_return running.has_ended;
}

Task<void> abort_and_wait(Running& running) {
  TaskGroup aborting(co_await boost::asio::this_coro::executor);
  aborting.spawn(abort_until_ended(running));
  {
    std::unique_lock lock(running.guard);
    if (!running.has_ended) co_await running.waiting.wait_uncancelled(lock);
  }
  aborting.cancel();
  (void)co_await aborting.join();
}
}  // namespace

Task<Result<void>> Libvirt::migrate(LibvirtMigration migration) {
  DISKFERRY_CO_CHECK(check_migration(migration));
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("migrate", migration.domain));
  Running running{.connection = *connection_, .domain = migration.domain, .guard{}};
  TaskGroup migrating(co_await boost::asio::this_coro::executor);
  migrating.spawn(migrate_and_note(running, std::move(migration)));
  const bool has_ended = co_await wait_for_end(running);
  if (!has_ended) co_await abort_and_wait(running);
  (void)co_await migrating.join();
  // How libvirt tells of an abort depends on what the migration was doing. A lost connection is worth more
  // than the wish to stop: nobody knows then what came of it.
  auto& result = running.result;
  if (!result && running.abort_was_taken && result.error().kind() != ErrorKind::gone)
    co_return unexpected(cancelled_error("migrate", running.domain).why(result.error().why()));
  co_return std::move(result);
}

}  // namespace diskferry
