// What the parts of Libvirt share: the open connection, and how a call is made on it. Internal to this room.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/hypervisor/call_threads.hpp"
#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/hypervisor/libvirt_event_loop.hpp"
#include "gateway/hypervisor/libvirt_names.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace diskferry {

/// Who is told of events. It outlives its connection where libvirt's loop is in the middle of telling.
struct LibvirtWatcher {
  std::mutex guard;  // held while the handler runs, so that none runs after close()
  std::function<void(const LibvirtEvent&)> handler;
};

/// Shared by the Libvirt object and the calls that run; whoever is last closes what close() did not.
class LibvirtConnection : public std::enable_shared_from_this<LibvirtConnection> {
 public:
  LibvirtConnection(DriverContext& driver_context, std::string at)
      : context(driver_context), uri(std::move(at)), threads(driver_context.clock) {}
  ~LibvirtConnection();
  LibvirtConnection(const LibvirtConnection&) = delete;
  LibvirtConnection& operator=(const LibvirtConnection&) = delete;

  /// Blocks. Lets no further event through, then closes.
  void close() noexcept;

  /// Calls `work(connection)` on a thread of its own. libvirt's errors belong to the thread: `work` makes its
  /// Error there. Errors: those of `work`, and of CallThreads.
  template <class T>
  Task<Result<T>> call(CallTerms terms, std::function<Result<T>(_virConnect*)> work) {
    if (handle == nullptr) co_return unexpected(closed(std::move(terms)));
    terms.is_lost = [open = handle] { return is_lost(open); };
    std::function<Result<T>()> on_thread = [self = shared_from_this(), work = std::move(work)] {
      return work(self->handle);
    };
    if constexpr (std::is_void_v<T>) {
      co_return co_await threads.run(std::move(terms), std::move(on_thread));
    } else {
      co_return co_await threads.run_for<T>(std::move(terms), std::move(on_thread));
    }
  }
  /// The same on the domain `terms.object`, which is looked up by its name and let go afterwards.
  template <class T>
  Task<Result<T>> on_domain(CallTerms terms, std::function<Result<T>(_virConnect*, _virDomain*)> work) {
    std::function<Result<T>(_virConnect*)> on_connection =
        [operation = terms.operation, domain = terms.object,
         work = std::move(work)](_virConnect* connection) -> Result<T> {
      DISKFERRY_TRY(const DomainPtr found, find(connection, operation, domain));
      return work(connection, found.get());
    };
    return call<T>(std::move(terms), std::move(on_connection));
  }
  template <class T>
  Task<Result<T>> on_domain(std::string operation, std::string domain,
                            std::function<Result<T>(_virConnect*, _virDomain*)> work) {
    return on_domain<T>(CallTerms{.operation = std::move(operation), .object = std::move(domain)},
                        std::move(work));
  }

  struct FreeDomain {
    void operator()(_virDomain* domain) const noexcept;
  };
  using DomainPtr = std::unique_ptr<_virDomain, FreeDomain>;
  /// Errors: not_found, and those of a broken connection.
  static Result<DomainPtr> find(_virConnect* connection, const std::string& operation,
                                const std::string& domain);

  DriverContext& context;
  const std::string uri;
  std::unique_ptr<EventLoopLease> loop;
  _virConnect* handle = nullptr;  // set once while connecting, cleared by close()
  CallThreads threads;
  std::vector<std::pair<int, std::shared_ptr<LibvirtWatcher>>> watchers;  // under watchers_guard
  std::mutex watchers_guard;

 private:
  void stop_watching(_virConnect* closing) noexcept;
  /// Asks libvirt's client, which sends nothing.
  static bool is_lost(_virConnect* connection) noexcept;
  Error closed(CallTerms terms) const;
};

}  // namespace diskferry
