// One detached thread for each lookup, the only one of the project: getaddrinfo cannot be cancelled, a
// resolver without network keeps it for 10 s and more, and neither a deadline nor the end of the program may
// wait for that. The thread owns everything it touches, and their number is bounded.
#include "drivers/support/host_lookup.hpp"

#include "diskferry/image_uri.hpp"
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

namespace diskferry {
namespace {
/// Lookups at once in this process. Attempts to reconnect begin at most every 2 s for each connection, and a
/// resolver gives up after 10 to 30 s: more than this is a resolver that will not answer.
constexpr unsigned lookups_max = 64;
std::atomic<unsigned> lookups = 0;

struct Lookup {
  explicit Lookup(std::string name) : host(std::move(name)) {}
  const std::string host;
  std::mutex guard{};
  WaitQueue answered{};
  bool is_done = false;
  int failed = 0;  // EAI_...
  std::vector<std::string> addresses{};
};

bool is_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  // A scope ("fe80::1%eth0") is the kernel's business, not a server's.
  const std::string bare = host.substr(0, host.find('%'));
  return inet_pton(AF_INET, bare.c_str(), bytes) == 1 || inet_pton(AF_INET6, bare.c_str(), bytes) == 1;
}

std::vector<std::string> texts_of(const addrinfo* found) {
  std::vector<std::string> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      addresses.emplace_back(text);
  }
  return addresses;
}

void ask_resolver(Lookup& lookup) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(lookup.host.c_str(), nullptr, &hints, &found);
  std::vector<std::string> addresses;
  if (failed == 0) {
    addresses = texts_of(found);
    freeaddrinfo(found);
  }
  std::lock_guard lock(lookup.guard);
  lookup.failed = failed == 0 && addresses.empty() ? EAI_NONAME : failed;
  lookup.addresses = std::move(addresses);
  lookup.is_done = true;
  lookup.answered.wake_all();
}

/// Kinds: a name that nobody knows stays so; a resolver without an answer may have one later.
Error lookup_error(const Lookup& lookup) {
  const bool is_unknown = lookup.failed == EAI_NONAME || lookup.failed == EAI_NODATA;
  return fail(is_unknown ? ErrorKind::not_found : ErrorKind::gone, "look up", printable(lookup.host))
      .why(fmt::format("the host's name has no address ({})", gai_strerror(lookup.failed)))
      .remedy("check the name, or give an address");
}

void start(const std::shared_ptr<Lookup>& lookup) {
  // Signals are for the threads that expect them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([lookup] {
      ask_resolver(*lookup);
      --lookups;
    }).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
}  // namespace

Task<Result<std::vector<std::string>>> look_up_host(std::string host) {
  if (is_address(host)) co_return std::vector<std::string>{std::move(host)};
  const auto refused = [&host](std::string why) {
    return unexpected(fail(ErrorKind::too_large, "look up", printable(host)).why(std::move(why)));
  };
  if (++lookups > lookups_max) {
    --lookups;
    co_return refused("too many lookups wait for the resolver");
  }
  const auto lookup = std::make_shared<Lookup>(host);
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
  if (lookup->failed != 0) co_return unexpected(lookup_error(*lookup));
  co_return std::move(lookup->addresses);
}

}  // namespace diskferry
