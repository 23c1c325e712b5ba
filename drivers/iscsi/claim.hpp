// Claim: the right to write to a LUN while a device is open, and the proof that it kept its power. Each
// session registers the device's key with the target, and one of them reserves the LUN for all who have
// registered it.
//
// A target forgets what was registered when it loses its power (we do not ask it to keep that), together with
// what it had only in its cache. So the key is what a verifier is in NFS: as long as it is found there,
// nothing that was acknowledged under it is lost. Where it is not, there is a new key, and a flush will tell.
#pragma once

#include "diskferry/sync.hpp"
#include "drivers/iscsi/reservation.hpp"
#include "drivers/iscsi/session.hpp"

namespace diskferry::iscsi {

/// What is the same for the processes of this host that see each other. Blocks for a moment.
std::string host_identity();
Processes processes_of_this_host(const std::string& identity);

/// What a target tells of the reservations of a LUN; nullopt: it knows nothing of reservations.
struct Registrations {
  std::vector<std::uint64_t> keys;
  std::optional<Reservation> held;
};
/// Errors: gone, cancelled; in_use (reserved in a way that is older than these).
Task<Result<std::optional<Registrations>>> registrations_of(IscsiSession& session, const Endpoint& endpoint);

/// Thread: any; each call is on its session's.
class Claim {
 public:
  /// Lifetime: `endpoint` outlives it.
  Claim(const Endpoint& endpoint, Processes processes);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  /// Registers a session that is not up yet. Returns the verifier of what is acknowledged from now on.
  /// Errors: in_use, gone, cancelled.
  Task<Result<std::uint64_t>> take(IscsiSession& session);
  /// Whether the target knows of reservations; asked after the first take().
  bool is_proof() const noexcept { return is_known_.load(); }
  /// Lets go, as far as this session is concerned.
  Task<void> release(IscsiSession& session);

 private:
  Task<Result<void>> reserve(IscsiSession& session, const Registrations& now);
  Task<Result<void>> tell(IscsiSession& session, ReserveOut action, std::uint64_t key, std::uint64_t other);
  Task<Result<void>> clear_left_behind(IscsiSession& session, const Registrations& now);
  void renew_key(const std::vector<std::uint64_t>& taken);

  const Endpoint& endpoint_;
  const Processes processes_;
  AsyncMutex turn_{};
  std::atomic<bool> is_known_ = true;
  std::uint64_t key_ = 0;    // 0: none yet
  std::uint64_t lives_ = 0;  // where there is no key
};

}  // namespace diskferry::iscsi
