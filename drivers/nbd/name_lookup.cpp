// One detached thread for each lookup, the only one of the project: getaddrinfo cannot be cancelled, a
// resolver without network keeps it for 10 s and more, and neither a deadline nor the end of the program may
// wait for that. The thread owns everything it touches, and their number is bounded.
#include "drivers/nbd/name_lookup.hpp"

#include "diskferry/sync.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <csignal>
#include <fmt/format.h>
#include <memory>
#include <mutex>
#include <netdb.h>
#include <system_error>
#include <thread>

namespace diskferry::nbd {
namespace {
/// Lookups at once in this process. Attempts to reconnect begin at most every 2 s for each connection, and a
/// resolver gives up after 10 to 30 s: more than this is a resolver that will not answer.
constexpr unsigned lookups_max = 64;
std::atomic<unsigned> lookups = 0;

struct Lookup {
  std::string host;
  std::string port;
  std::mutex guard;
  WaitQueue answered;
  bool is_done = false;
  std::optional<LibraryError> problem;
};

bool is_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  // A scope ("fe80::1%eth0") is the kernel's business, not a server's.
  const std::string bare = host.substr(0, host.find('%'));
  return inet_pton(AF_INET, bare.c_str(), bytes) == 1 || inet_pton(AF_INET6, bare.c_str(), bytes) == 1;
}

void ask_resolver(const std::shared_ptr<Lookup>& lookup) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(lookup->host.c_str(), lookup->port.c_str(), &hints, &found);
  if (failed == 0) freeaddrinfo(found);
  std::lock_guard lock(lookup->guard);
  if (failed != 0)
    lookup->problem = LibraryError{0, fmt::format("getaddrinfo: hostname \"{}\" port \"{}\": {}",
                                                  lookup->host, lookup->port, gai_strerror(failed))};
  lookup->is_done = true;
  lookup->answered.wake_all();
}

void start(const std::shared_ptr<Lookup>& lookup) {
  // Signals are for the threads that expect them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([lookup] {
      ask_resolver(lookup);
      --lookups;
    }).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
}  // namespace

Task<Result<std::optional<LibraryError>>> look_up(std::string host, std::string port) {
  if (is_address(host)) co_return std::nullopt;
  const auto refused = [&host](std::string why) {
    return unexpected(fail(ErrorKind::too_large, "look up", printable(host)).why(std::move(why)));
  };
  if (++lookups > lookups_max) {
    --lookups;
    co_return refused("too many lookups wait for the resolver");
  }
  auto lookup = std::make_shared<Lookup>();
  lookup->host = host;
  lookup->port = std::move(port);
  try {
    start(lookup);
  } catch (const std::system_error&) {
    --lookups;
    co_return refused("no thread can be started");
  }
  std::unique_lock lock(lookup->guard);
  while (!lookup->is_done) {
    if (!co_await lookup->answered.wait(lock))
      co_return unexpected(cancelled_error("look up", printable(host)));
    lock.lock();
  }
  co_return lookup->problem;
}

}  // namespace diskferry::nbd
