// One detached thread for each lookup: getaddrinfo cannot be cancelled, a resolver without network keeps it
// for 10 s and more, and neither a deadline nor the end of the program may wait for that.
#include "drivers/support/host_lookup.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/abandonable_call.hpp"
#include "drivers/support/detached_thread.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <fmt/format.h>
#include <memory>
#include <netdb.h>
#include <system_error>

namespace diskferry {
namespace {
/// Lookups at once in this process. Attempts to reconnect begin at most every 2 s for each connection, and a
/// resolver gives up after 10 to 30 s: more than this is a resolver that will not answer.
constexpr unsigned lookups_max = 64;
std::atomic<unsigned> lookups = 0;

struct Found {
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

Found ask_resolver(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* answer = nullptr;
  Found found{.failed = getaddrinfo(host.c_str(), nullptr, &hints, &answer)};
  if (found.failed != 0) return found;
  found.addresses = texts_of(answer);
  freeaddrinfo(answer);
  if (found.addresses.empty()) found.failed = EAI_NONAME;
  return found;
}

/// Kinds: a name that nobody knows stays so; a resolver without an answer may have one later.
Error lookup_error(const std::string& host, int failed) {
  const bool is_unknown = failed == EAI_NONAME || failed == EAI_NODATA;
  return fail(is_unknown ? ErrorKind::not_found : ErrorKind::gone, "look up", printable(host))
      .why(fmt::format("the host's name has no address ({})", gai_strerror(failed)))
      .remedy("check the name, or give an address");
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
  const auto lookup = std::make_shared<AbandonableCall<Found>>();
  try {
    start_detached([lookup, host] {
      Found found = ask_resolver(host);
      --lookups;
      lookup->finish(std::move(found));
    });
  } catch (const std::system_error&) {
    --lookups;
    co_return refused("no thread can be started");
  }
  auto found = co_await lookup->wait();
  if (!found) co_return unexpected(cancelled_error("look up", printable(host)));
  if (found->failed != 0) co_return unexpected(lookup_error(host, found->failed));
  co_return std::move(found->addresses);
}

}  // namespace diskferry
