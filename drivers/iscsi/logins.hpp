// Logins: how often a session was logged in, and whether a change that nobody waits for any more may still
// be done by the target. A login of the same session ends there what the one before had to do (RFC 7143,
// 6.3.5). Pure.
#pragma once

#include <atomic>
#include <cstdint>

namespace diskferry::iscsi {

/// Thread: any.
class Logins {
 public:
  void add() noexcept { count_.fetch_add(1); }
  /// The number of the last one; 0: none yet.
  std::uint64_t last() const noexcept { return count_.load(); }
  /// A change that was sent after that login was lost, and its caller has given it up. 0: it was not sent.
  void abandon(std::uint64_t login) noexcept {
    std::uint64_t before = abandoned_.load();
    while (before < login && !abandoned_.compare_exchange_weak(before, login)) {
    }
  }
  /// What comes after such a change must not be sent, by whatever session.
  bool may_still_change() const noexcept {
    const std::uint64_t abandoned = abandoned_.load();
    return abandoned != 0 && abandoned == count_.load();
  }

 private:
  std::atomic<std::uint64_t> count_ = 0;
  std::atomic<std::uint64_t> abandoned_ = 0;  // the login of the last one
};

}  // namespace diskferry::iscsi
