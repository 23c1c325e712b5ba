#include "drivers/gluster/mounts.hpp"

#include "drivers/gluster/status.hpp"
#include "drivers/support/detached_thread.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <glusterfs/api/glfs.h>
#include <mutex>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

namespace diskferry::gluster {
namespace {

/// Mounts that nobody uses and that are kept for the next one. Each has about a dozen threads.
constexpr std::size_t idle_max = 4;
/// Attempts whose glfs_init() has not returned and whom nobody waits for any more.
constexpr std::size_t stuck_per_volume_max = 4;
constexpr std::size_t stuck_max = 16;
/// How often the library's log is looked at while it mounts.
constexpr Duration look_pause = std::chrono::milliseconds(50);
constexpr std::size_t log_bytes_max = 64 * 1024;
/// GF_LOG_ERROR and GF_LOG_NONE of the library, which does not publish them.
constexpr int log_errors = 4;
constexpr int log_nothing = 0;

/// A file in memory that the library logs to while it mounts. Where there is none, nothing is told.
class MountLog {
 public:
  MountLog() : fd_(::memfd_create("gluster-log", MFD_CLOEXEC)) {}
  ~MountLog() {
    if (fd_ >= 0) ::close(fd_);
  }
  MountLog(const MountLog&) = delete;
  MountLog& operator=(const MountLog&) = delete;

  std::string path() const {
    const std::string path = "/proc/self/fd/" + std::to_string(fd_);
    return fd_ >= 0 && ::access(path.c_str(), W_OK) == 0 ? path : "/dev/null";
  }
  std::optional<MountRefusal> refusal() const {
    std::string text(log_bytes_max, '\0');
    const ssize_t got = fd_ >= 0 ? ::pread(fd_, text.data(), text.size(), 0) : 0;
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return refusal_in_log(text);
  }

 private:
  const int fd_;
};

struct Attempt {
  explicit Attempt(Endpoint to) : endpoint(std::move(to)), key(endpoint.mount_key()) {}
  const Endpoint endpoint;
  const std::string key;
  const MountLog log{};
  std::mutex guard{};
  WaitQueue waiting{};
  std::optional<Result<VolumePtr>> outcome{};
};
using AttemptPtr = std::shared_ptr<Attempt>;

/// Thread: any.
class Table {
 public:
  /// Never destroyed: threads that nobody joins use it until the process is gone.
  static Table& get() {
    static Table& table = *new Table;
    return table;
  }

  struct Found {
    VolumePtr volume;    // or else
    AttemptPtr attempt;  // one that is under way
  };
  Result<Found> find_or_start(const Endpoint& endpoint);
  void succeeded(const AttemptPtr& attempt, const VolumePtr& volume);
  void ended(const AttemptPtr& attempt);
  /// Whoever comes next starts a new attempt.
  void leave_behind(const AttemptPtr& attempt);
  void forget(const VolumePtr& volume);
  void trim();

 private:
  struct Entry {
    std::string key;
    VolumePtr volume;
  };
  std::mutex guard_;
  std::vector<Entry> mounted_;  // the one asked for last is the last
  std::vector<AttemptPtr> under_way_;
  std::vector<AttemptPtr> stuck_;
};

void set_options(glfs* fs, const Endpoint& endpoint) {
  const std::string stall = std::to_string(endpoint.stall_s);
  // What a brick takes for longer than this although it answers pings (its disk hangs).
  const std::string frame = std::to_string(endpoint.frame_s());
  struct Option {
    const char* translator;
    const char* key;
    const char* value;
  };
  const std::array options{
      // An acknowledged write is one that the bricks have, and what is read is what they have now.
      Option{"*-write-behind", "pass-through", "true"},
      Option{"*-open-behind", "pass-through", "true"},
      Option{"*-md-cache", "pass-through", "true"},
      Option{"*-io-cache", "pass-through", "true"},
      Option{"*-read-ahead", "pass-through", "true"},
      Option{"*-quick-read", "max-file-size", "0"},
      // A file whose lock is lost with its brick is not opened again behind our back: see file.hpp.
      Option{"*-client-*", "strict-locks", "on"},
      Option{"*-client-*", "ping-timeout", stall.c_str()},
      Option{"*-client-*", "frame-timeout", frame.c_str()},
  };
  for (const auto& [translator, key, value] : options)
    (void)glfs_set_xlator_option(fs, translator, key, value);
}

/// On a thread of its own. Nothing of the attempt is kept while the volume is served: it holds a reference.
void run_attempt(AttemptPtr attempt) {
  const Endpoint& endpoint = attempt->endpoint;
  const auto finish = [&](Result<VolumePtr> outcome) {
    Table::get().ended(attempt);
    std::lock_guard lock(attempt->guard);
    attempt->outcome.emplace(std::move(outcome));
    attempt->waiting.wake_all();
  };
  glfs* const fs = glfs_new(endpoint.volume.c_str());
  if (fs == nullptr)
    return finish(unexpected(fail(ErrorKind::too_large, "mount", endpoint.name).why("out of memory")));
  int failed = 0;
  for (const Server& server : endpoint.servers) {
    if (failed == 0)
      failed = glfs_set_volfile_server(fs, server.transport.c_str(), server.host.c_str(), server.port);
  }
  (void)glfs_set_logging(fs, attempt->log.path().c_str(), log_errors);
  set_options(fs, endpoint);
  if (failed == 0) failed = glfs_init(fs);
  const int number = errno;
  // From here on the volume's own settings would have it log everything.
  (void)glfs_set_logging(fs, "/dev/null", log_nothing);
  if (failed != 0) {
    finish(unexpected(mount_error(number, attempt->log.refusal(), endpoint.name)));
    glfs_fini(fs);
    return;
  }
  auto volume = std::make_shared<Volume>(fs);
  auto core = volume->core();
  Table::get().succeeded(attempt, volume);
  finish(std::move(volume));
  attempt.reset();
  Volume::serve(std::move(core));
}

Result<Table::Found> Table::find_or_start(const Endpoint& endpoint) {
  const std::string key = endpoint.mount_key();
  std::lock_guard lock(guard_);
  if (const auto found = std::ranges::find(mounted_, key, &Entry::key); found != mounted_.end()) {
    std::rotate(found, found + 1, mounted_.end());
    return Found{.volume = mounted_.back().volume, .attempt = nullptr};
  }
  for (const AttemptPtr& attempt : under_way_) {
    if (attempt->key == key) return Found{.volume = nullptr, .attempt = attempt};
  }
  const auto stuck = std::ranges::count(stuck_, key, [](const AttemptPtr& one) { return one->key; });
  if (static_cast<std::size_t>(stuck) >= stuck_per_volume_max || stuck_.size() >= stuck_max)
    return unexpected(fail(ErrorKind::too_large, "mount", endpoint.name)
                          .why("earlier attempts to mount it still hang in the library")
                          .remedy("see that the volume lets this host in, then restart this program"));
  const auto attempt = std::make_shared<Attempt>(endpoint);
  try {
    start_detached([starting = attempt]() mutable { run_attempt(std::move(starting)); });
  } catch (const std::system_error&) {
    return unexpected(fail(ErrorKind::too_large, "mount", endpoint.name).why("no thread can be started"));
  }
  under_way_.push_back(attempt);  // it cannot have ended: that takes our mutex
  return Found{.volume = nullptr, .attempt = attempt};
}

void Table::succeeded(const AttemptPtr& attempt, const VolumePtr& volume) {
  std::lock_guard lock(guard_);
  // One that was left behind may come when another has taken its place.
  if (std::ranges::find(mounted_, attempt->key, &Entry::key) == mounted_.end())
    mounted_.push_back({.key = attempt->key, .volume = volume});
}

void Table::ended(const AttemptPtr& attempt) {
  std::lock_guard lock(guard_);
  std::erase(under_way_, attempt);
  std::erase(stuck_, attempt);
}

void Table::leave_behind(const AttemptPtr& attempt) {
  std::lock_guard lock(guard_);
  if (std::erase(under_way_, attempt) != 0) stuck_.push_back(attempt);
}

void Table::forget(const VolumePtr& volume) {
  std::lock_guard lock(guard_);
  std::erase_if(mounted_, [&](const Entry& one) { return one.volume == volume; });
}

void Table::trim() {
  std::lock_guard lock(guard_);
  const auto is_idle = [](const Entry& one) { return one.volume.use_count() == 1; };
  auto idle = static_cast<std::size_t>(std::ranges::count_if(mounted_, is_idle));
  std::erase_if(mounted_, [&](const Entry& one) {
    if (!is_idle(one) || idle <= idle_max) return false;
    --idle;
    return true;
  });
}

Task<Result<void>> wait_for_outcome(AttemptPtr attempt) {
  std::unique_lock lock(attempt->guard);
  while (!attempt->outcome) {
    if (!co_await attempt->waiting.wait(lock))
      co_return unexpected(cancelled_error("mount", attempt->endpoint.name));
    lock.lock();
  }
  co_return Result<void>{};
}

}  // namespace

Task<Result<Mount>> mount(Clock& clock, const Endpoint& endpoint) {
  DISKFERRY_CO_TRY(const Table::Found found, Table::get().find_or_start(endpoint));
  if (found.volume) co_return Mount{.volume = found.volume, .was_there = true};
  const AttemptPtr& attempt = found.attempt;
  const TimePoint until = Clock::after(clock.now(), endpoint.connect_limit);
  while (true) {
    const Duration pause = std::min<Duration>(look_pause, std::max(until - clock.now(), Duration::zero()));
    const auto waited = co_await with_deadline(clock, pause, "mount", wait_for_outcome(attempt));
    if (waited) break;
    if (waited.error().kind() != ErrorKind::timed_out) co_return unexpected(waited.error());
    const auto refusal = attempt->log.refusal();
    if (!(refusal && refusal->is_final) && clock.now() < until) continue;
    Table::get().leave_behind(attempt);
    if (refusal) co_return unexpected(mount_error(ETIMEDOUT, refusal, endpoint.name));
    co_return unexpected(fail(ErrorKind::timed_out, "mount", endpoint.name)
                             .why("the volume is not mounted in time")
                             .remedy("check its bricks with 'gluster volume status'"));
  }
  std::lock_guard lock(attempt->guard);
  if (!*attempt->outcome) co_return unexpected(attempt->outcome->error());
  co_return Mount{.volume = **attempt->outcome};
}

void forget_mount(const VolumePtr& volume) {
  Table::get().forget(volume);
}

void trim_mounts() {
  Table::get().trim();
}

}  // namespace diskferry::gluster
