#include "drivers/iscsi/claim.hpp"

#include "drivers/iscsi/inspect.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry::iscsi {
namespace {

/// More keys than any target takes registrations.
constexpr std::uint16_t keys_bytes = 8 + 8 * 512;
constexpr std::uint16_t reservation_bytes = 24;

/// The keys that devices of this process write under.
struct KeysInUse {
  std::mutex guard;
  std::set<std::uint64_t> keys;
};
KeysInUse& keys_in_use() {
  static KeysInUse keys;
  return keys;
}

bool is_running(std::uint32_t process) {
  return ::kill(static_cast<pid_t>(process), 0) == 0 || errno != ESRCH;
}

bool is_in_use(std::uint64_t key) {
  std::lock_guard lock(keys_in_use().guard);
  return keys_in_use().keys.contains(key);
}

}  // namespace

std::string host_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat processes{};
  (void)::stat("/proc/self/ns/pid", &processes);
  return fmt::format("{} {}", boot, processes.st_ino);
}

Processes processes_of_this_host(const std::string& identity) {
  return {.self = make_maker(identity, static_cast<std::uint32_t>(::getpid())),
          .is_running = is_running,
          .is_in_use = is_in_use};
}

Task<Result<std::optional<Registrations>>> registrations_of(IscsiSession& session, const Endpoint& endpoint) {
  std::vector<std::byte> into(keys_bytes);
  DISKFERRY_CO_TRY(
      const Answer keys,
      co_await session.ask(persistent_reserve_in(ReserveIn::read_keys, keys_bytes), {.into = into}));
  // RESERVE (6), which knows one owner and no keys.
  if (is_reserved(keys.status)) co_return unexpected(refusal(keys, "reserve", endpoint.name));
  if (judge(keys.status, keys.sense) != Verdict::done) co_return std::nullopt;
  Registrations now{.keys = keys_in(Bytes(into).first(keys.bytes)), .held = {}};
  DISKFERRY_CO_TRY(
      const auto held,
      co_await ask_for(session, persistent_reserve_in(ReserveIn::read_reservation, reservation_bytes),
                       reservation_bytes));
  if (held) now.held = reservation_in(*held);
  co_return now;
}

Claim::Claim(const Endpoint& endpoint, Processes processes)
    : endpoint_(endpoint), processes_(std::move(processes)) {}

Claim::~Claim() {
  std::lock_guard lock(keys_in_use().guard);
  keys_in_use().keys.erase(key_);
}

void Claim::renew_key(const std::vector<std::uint64_t>& taken) {
  std::random_device random;
  std::lock_guard lock(keys_in_use().guard);
  std::set<std::uint64_t>& ours = keys_in_use().keys;
  const std::uint64_t old = key_;
  do {
    key_ = make_key(processes_.self, random());
  } while (key_ == old || ours.contains(key_) || std::ranges::find(taken, key_) != taken.end());
  ours.erase(old);
  ours.insert(key_);
}

Task<Result<void>> Claim::tell(IscsiSession& session, ReserveOut action, std::uint64_t key,
                               std::uint64_t other) {
  const auto parameters = reserve_parameters(key, other);
  DISKFERRY_CO_TRY(const Answer answer,
                   co_await session.ask(persistent_reserve_out(action), {.from = parameters}));
  if (is_unknown_to_target(answer))
    co_return unexpected(fail(ErrorKind::unsupported, "reserve", endpoint_.name)
                             .why("the target does not take the request for a reservation"));
  if (judge(answer.status, answer.sense) != Verdict::done)
    co_return unexpected(refusal(answer, "reserve", endpoint_.name));
  co_return Result<void>{};
}

Task<Result<std::uint64_t>> Claim::take(IscsiSession& session) {
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await turn_.lock());
  if (!is_known_) co_return ++lives_;
  if (key_ != 0 && session.was_preempted()) co_return unexpected(preempted("reserve", endpoint_.name));
  DISKFERRY_CO_TRY(const auto now, co_await registrations_of(session, endpoint_));
  if (!now) {
    is_known_ = false;
    co_return ++lives_;
  }
  if (endpoint_.reserves && !endpoint_.steals_reservation && now->held && now->held->key != key_) {
    if (auto error = obstacle(now->held, processes_, endpoint_.name)) co_return unexpected(*std::move(error));
  }
  const bool is_same_life = key_ != 0 && std::ranges::find(now->keys, key_) != now->keys.end();
  if (!is_same_life) renew_key(now->keys);
  auto registered = co_await tell(session, ReserveOut::register_and_ignore, 0, key_);
  if (!registered && registered.error().kind() == ErrorKind::unsupported) {
    is_known_ = false;
    co_return ++lives_;
  }
  DISKFERRY_CO_CHECK(std::move(registered));
  if (endpoint_.reserves) DISKFERRY_CO_CHECK(co_await reserve(session, *now));
  if (!is_same_life) DISKFERRY_CO_CHECK(co_await clear_left_behind(session, *now));
  co_return key_;
}

Task<Result<void>> Claim::reserve(IscsiSession& session, const Registrations& now) {
  if (now.held && now.held->key == key_) co_return Result<void>{};
  const auto reserved = now.held ? co_await tell(session, ReserveOut::preempt, key_, now.held->key)
                                 : co_await tell(session, ReserveOut::reserve, key_, 0);
  if (reserved) co_return Result<void>{};
  (void)co_await tell(session, ReserveOut::register_and_ignore, 0, 0);
  co_return reserved;
}

/// Targets have room for some dozens of registrations only.
Task<Result<void>> Claim::clear_left_behind(IscsiSession& session, const Registrations& now) {
  std::set<std::uint64_t> keys;
  for (const std::uint64_t key : now.keys) {
    if (is_left_behind(key, processes_) && !(now.held && now.held->key == key)) keys.insert(key);
  }
  for (const std::uint64_t key : keys) {
    const auto cleared = co_await tell(session, ReserveOut::preempt, key_, key);
    if (!cleared && cleared.error().kind() == ErrorKind::gone) co_return cleared;
  }
  co_return Result<void>{};
}

Task<void> Claim::release(IscsiSession& session) {
  if (is_known_ && key_ != 0) (void)co_await tell(session, ReserveOut::register_and_ignore, 0, 0);
}

}  // namespace diskferry::iscsi
