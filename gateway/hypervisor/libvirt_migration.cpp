// The one long call: a migration, on a thread of its own, and its abort. libvirt has no call that waits for
// an abort, and one that comes before its job has begun is refused; so it is repeated until the migration has
// ended.
#include "gateway/hypervisor/libvirt_migration.hpp"

#include "diskferry/sync.hpp"
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

namespace diskferry {
namespace {
constexpr auto abort_interval = std::chrono::milliseconds(250);
/// After this many tries the abort is given up (post-copy cannot be aborted) and only the end is waited for.
constexpr int abort_tries_max = 480;

/// A migration that runs. What both threads and the task share.
struct Running {
  std::shared_ptr<LibvirtConnection> connection;
  LibvirtMigration wanted;
  std::mutex guard;
  WaitQueue waiting;
  std::condition_variable ended_for_threads;
  bool has_ended = false;
  bool abort_was_taken = false;
  Result<void> result{};
};

Result<void> call_libvirt(const Running& running) {
  const auto& wanted = running.wanted;
  virConnectPtr const connection = running.connection->handle;
  DISKFERRY_TRY(const auto domain, LibvirtConnection::find(connection, "migrate", wanted.domain));
  LibvirtParameters parameters;
  add_migration_parameters(wanted, parameters);
  if (virDomainMigrateToURI3(domain.get(), wanted.destination.c_str(), parameters.data(), parameters.size(),
                             migration_flags(wanted)) < 0)
    return unexpected(libvirt_error(connection, "migrate", wanted.domain));
  return {};
}

void migrate_on_thread(Running& running) {
  auto result = call_libvirt(running);
  std::lock_guard lock(running.guard);
  running.result = std::move(result);
  running.has_ended = true;
  running.waiting.wake_all();
  running.ended_for_threads.notify_all();
}

/// Whether libvirt took the abort.
bool abort_once(const Running& running) {
  const auto domain = LibvirtConnection::find(running.connection->handle, "abort", running.wanted.domain);
  return domain && virDomainAbortJob(domain->get()) == 0;
}

void abort_on_thread(Running& running) {
  std::unique_lock lock(running.guard);
  for (int i = 0; i < abort_tries_max && !running.has_ended; ++i) {
    lock.unlock();
    const bool was_taken = abort_once(running);
    lock.lock();
    running.abort_was_taken = running.abort_was_taken || was_taken;
    running.ended_for_threads.wait_for(lock, abort_interval, [&running] { return running.has_ended; });
  }
}

/// Whether the migration ended; false when this task was asked to stop before that.
Task<bool> wait_for_end(Running& running) {
  std::unique_lock lock(running.guard);
  if (running.has_ended) co_return true;
  (void)co_await running.waiting.wait(lock);
  lock.lock();
  co_return running.has_ended;
}

/// Starts a thread; an error where the system has none.
Result<std::thread> start_thread(void (*run)(Running&), Running& running) {
  try {
    return std::thread(run, std::ref(running));
  } catch (const std::system_error& error) {
    return unexpected(fail(ErrorKind::too_large, "start thread").cause(error.code()));
  }
}

Task<void> abort_and_wait(Running& running) {
  auto aborting = start_thread(abort_on_thread, running);  // without one, the migration goes on to its end
  {
    std::unique_lock lock(running.guard);
    if (!running.has_ended) co_await running.waiting.wait_uncancelled(lock);
  }
  if (aborting)
    aborting->join();  // it wakes with the end; a call of its own takes no longer than keep-alive lets it
}
}  // namespace

Task<Result<void>> Libvirt::migrate(LibvirtMigration migration) {
  DISKFERRY_CO_CHECK(check_migration(migration));
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("migrate", migration.domain));
  Running running;
  running.connection = connection_;
  running.wanted = std::move(migration);
  if (connection_->handle == nullptr)
    co_return unexpected(
        fail(ErrorKind::gone, "migrate", running.wanted.domain).why("the connection is closed"));
  DISKFERRY_CO_TRY(std::thread migrating, start_thread(migrate_on_thread, running));
  const bool has_ended = co_await wait_for_end(running);
  if (!has_ended) co_await abort_and_wait(running);
  migrating.join();
  // How libvirt tells of an abort depends on what the migration was doing. A lost connection is worth more
  // than the wish to stop: nobody knows then what came of it.
  auto& result = running.result;
  if (!result && running.abort_was_taken && result.error().kind() != ErrorKind::gone)
    co_return unexpected(cancelled_error("migrate", running.wanted.domain).why(result.error().why()));
  co_return std::move(result);
}

}  // namespace diskferry
