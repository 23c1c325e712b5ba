// Sockets that do not wait, and one poll(2) for all of them, on a thread that may.
#include "gateway/move/host_probe.hpp"

#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <cerrno>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace diskferry {
namespace {

constexpr std::size_t addresses_max = 8;

/// One connection that is being made.
struct Attempt {
  int fd = -1;
  std::uint16_t port = 0;
};

/// 0: connected; EINPROGRESS: not known yet; else the errno.
int begin(const addrinfo& address, Attempt& attempt) {
  attempt.fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (attempt.fd < 0) return errno;
  return ::connect(attempt.fd, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
}

bool is_answer(int outcome) {
  return outcome == 0 || outcome == ECONNREFUSED;
}

void note(HostAnswer& answer, std::uint16_t port, int outcome) {
  if (!is_answer(outcome)) return;
  answer.answers = true;
  answer.port = port;
  answer.refused = outcome == ECONNREFUSED;
}

void wait_for_any(std::vector<Attempt>& attempts, Duration limit, HostAnswer& answer) {
  const TimePoint end = Clock::after(std::chrono::steady_clock::now(), limit);
  while (!attempts.empty() && !answer.answers) {
    std::vector<pollfd> watched;
    for (const Attempt& each : attempts) watched.push_back({.fd = each.fd, .events = POLLOUT, .revents = 0});
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return;
    if (::poll(watched.data(), watched.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) return;
    for (std::size_t i = watched.size(); i-- > 0;) {
      if (watched[i].revents == 0) continue;
      int outcome = 0;
      socklen_t length = sizeof outcome;
      (void)::getsockopt(attempts[i].fd, SOL_SOCKET, SO_ERROR, &outcome, &length);
      note(answer, attempts[i].port, outcome);
      ::close(attempts[i].fd);
      attempts.erase(attempts.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

HostAnswer probe(const std::string& host, const std::vector<std::uint16_t>& ports, Duration limit) {
  HostAnswer answer;
  std::vector<Attempt> attempts;
  for (const std::uint16_t port : ports) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) break;
    std::size_t count = 0;
    for (const addrinfo* one = found; one != nullptr && count < addresses_max; one = one->ai_next, ++count) {
      answer.has_address = true;
      Attempt attempt{.port = port};
      const int outcome = begin(*one, attempt);
      if (outcome == EINPROGRESS) {
        attempts.push_back(attempt);
        continue;
      }
      note(answer, port, outcome);
      if (attempt.fd >= 0) ::close(attempt.fd);
    }
    ::freeaddrinfo(found);
  }
  wait_for_any(attempts, limit, answer);
  for (const Attempt& each : attempts) ::close(each.fd);
  return answer;
}

}  // namespace

Task<HostAnswer> probe_host(DriverContext& context, std::string host, std::vector<std::uint16_t> ports,
                            Duration limit) {
  co_return co_await context.blocking_pool.run([&] { return probe(host, ports, limit); });
}

}  // namespace diskferry
