// See the header.
#include "drivers/foreign/qemu_nbd.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/foreign/last_words.hpp"
#include "drivers/foreign/restart_rule.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

namespace diskferry::foreign {
namespace {

constexpr std::size_t said_bytes_max = 4096;
constexpr Duration first_pause = std::chrono::milliseconds(100);
constexpr Duration pause_max = std::chrono::seconds(2);
/// More than we ever make connections at once (16), and those which it has not yet noticed to be gone.
constexpr std::string_view clients_max = "64";

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

const char* environment(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody changes our environment
}

/// The operator trusts the images more than this system can protect against them.
bool may_be_unconfined() {
  const char* value = environment("DISKFERRY_ALLOW_UNCONFINED");
  return value != nullptr && std::string_view(value) == "1";
}

Error unanswered_error(std::string name, Duration away) {
  return fail(ErrorKind::gone, "read", std::move(name))
      .why(fmt::format("the server did not answer for {} s",
                       std::chrono::ceil<std::chrono::seconds>(away).count()))
      .remedy("check that the server runs");
}

bool is_program(const std::filesystem::path& path) {
  std::error_code failed;
  return std::filesystem::is_regular_file(path, failed) && ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

Result<std::string> find_qemu_nbd() {
  const char* configured = environment("DISKFERRY_QEMU_NBD");
  const char* path = environment("PATH");
  std::vector<std::filesystem::path> places;
  if (configured != nullptr && *configured != '\0') {
    places.emplace_back(configured);
  } else {
    std::string_view rest = path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
    while (!rest.empty()) {
      const auto end = rest.find(':');
      const auto folder = rest.substr(0, end);
      if (folder.starts_with('/')) places.push_back(std::filesystem::path(folder) / "qemu-nbd");
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    }
  }
  for (const auto& place : places) {
    std::error_code failed;
    if (is_program(place)) return std::filesystem::canonical(place, failed).string();
  }
  return unexpected(fail(ErrorKind::unsupported, "start", configured == nullptr ? "qemu-nbd" : configured)
                        .why("formats of other hypervisors and http, https and ssh sources are read through "
                             "qemu-nbd, which is not there")
                        .remedy("install the package qemu-utils (and qemu-block-extra for http, https and "
                                "ssh), or name the program in DISKFERRY_QEMU_NBD"));
}

QemuNbd::QemuNbd(QemuNbdOptions options, std::string program, Listener listener)
    : options_(std::move(options)), program_(std::move(program)), listener_(std::move(listener)) {}

Result<std::unique_ptr<QemuNbd>> QemuNbd::start(QemuNbdOptions options) {
  DISKFERRY_TRY(std::string program, find_qemu_nbd());
  DISKFERRY_TRY(Listener listener, Listener::make());
  std::unique_ptr<QemuNbd> made(new QemuNbd(std::move(options), std::move(program), std::move(listener)));
  std::promise<Result<void>> first;
  auto started = first.get_future();
  made->thread_ = std::thread([self = made.get(), &first] { self->supervise(first); });
  DISKFERRY_CHECK(started.get());
  return made;
}

QemuNbd::~QemuNbd() {
  kill_child();
  if (thread_.joinable()) thread_.join();
}

void QemuNbd::kill_child() {
  std::lock_guard lock(guard_);
  is_stopping_ = true;
  if (pid_ > 0) ::kill(pid_, SIGKILL);
  stopping_.notify_all();
}

Task<void> QemuNbd::stop() {
  co_await boost::asio::this_coro::reset_cancellation_state();
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  kill_child();
  (void)co_await ended_.wait();
}

void QemuNbd::supervise(std::promise<Result<void>>& first) {
  sigset_t all{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  auto started = start_child();
  const bool is_started = started.has_value();
  first.set_value(std::move(started));  // gone from here on
  if (is_started) {
    while (true) {
      if (!may_restart(wait_for_child())) break;
      if (auto again = start_child(); !again) {
        end(std::move(again).error());
        break;
      }
      if (const auto call = registered(on_restart_)) call();
    }
  }
  ended_.set();
}

Result<void> QemuNbd::start_child() {
  std::vector<FileDescriptor> passed;
  if (options_.passed) {
    DISKFERRY_TRY(passed, options_.passed());
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return unexpected(errno_error(errno, "start", program_));
  FileDescriptor errors(ends[0]);
  const FileDescriptor child_errors(ends[1]);
  ConfinedProgram program{
      .path = program_,
      .arguments = {"qemu-nbd", "--read-only", "--persistent", fmt::format("--shared={}", clients_max)},
      .environment = options_.environment,
      .errors = child_errors.get(),
      .passed = {listener_.socket()},
      .confinement = options_.confinement,
      .allow_unconfined = may_be_unconfined()};
  for (const std::string& object : options_.objects)
    program.arguments.insert(program.arguments.end(), {"--object", object});
  program.arguments.insert(program.arguments.end(), {"--image-opts", options_.image});
  program.environment.insert(program.environment.end(), {"LISTEN_FDS=1", "LC_ALL=C"});
  for (const FileDescriptor& one : passed) program.passed.push_back(one.get());
  // Under the guard, so that whoever stops it meanwhile finds it.
  std::lock_guard lock(guard_);
  if (is_stopping_) return unexpected(cancelled_error("start", program_));
  DISKFERRY_TRY(pid_, start_confined(program));
  errors_ = std::move(errors);
  said_.clear();
  return {};
}

/// Until it has ended; its wait status.
int QemuNbd::wait_for_child() {
  std::array<char, 1024> part{};
  while (true) {
    const ssize_t got = ::read(errors_.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    std::lock_guard lock(guard_);
    said_.append(part.data(), static_cast<std::size_t>(got));
    if (said_.size() > said_bytes_max) said_.erase(0, said_.size() - said_bytes_max);
  }
  siginfo_t ended{};
  while (::waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  // Its number is free for others from here on.
  std::lock_guard lock(guard_);
  int status = 0;
  (void)::waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

bool QemuNbd::may_restart(int status) {
  std::unique_lock lock(guard_);
  const bool was_asked = std::exchange(is_restart_asked_, false);
  if (is_stopping_) return false;
  const Duration away = time_away();
  std::optional<Error> reason;
  switch (after_end({.was_open = is_open_,
                     .was_asked = was_asked,
                     .by_signal = WIFSIGNALED(status),
                     .crashes = crashes_,
                     .away = away,
                     .keep_trying = options_.keep_trying})) {
    case AfterEnd::restart:
      return true;
    case AfterEnd::restart_after_crash:
      ++crashes_;
      return true;
    case AfterEnd::restart_after_pause:
      note_failure();
      return !stopping_.wait_for(lock, std::clamp(away / 4, first_pause, pause_max),
                                 [this] { return is_stopping_; });
    case AfterEnd::give_up:
      reason = error_of({.wait_status = status, .was_open = is_open_, .said = said_, .path = options_.path},
                        options_.name);
      break;
    case AfterEnd::unanswered:
      reason = unanswered_error(options_.name, away);
  }
  lock.unlock();
  end(*std::move(reason));
  return false;
}

void QemuNbd::end(Error error) {
  {
    std::lock_guard lock(guard_);
    death_ = std::move(error);
    listener_.close();  // whoever waits to be accepted is let go
  }
  if (const auto call = registered(on_end_)) call();
}

void QemuNbd::on_restart(std::function<void()> call) {
  std::lock_guard lock(guard_);
  on_restart_ = std::move(call);
}
void QemuNbd::on_end(std::function<void()> call) {
  std::lock_guard lock(guard_);
  on_end_ = std::move(call);
}
std::function<void()> QemuNbd::registered(const std::function<void()>& call) const {
  std::lock_guard lock(guard_);
  return call;
}

pid_t QemuNbd::pid() const {
  std::lock_guard lock(guard_);
  return pid_;
}

void QemuNbd::opened() {
  note_success();
  std::lock_guard lock(guard_);
  is_open_ = true;
}

void QemuNbd::note_success() noexcept {
  if (away_since_ns_.load(std::memory_order_relaxed) != 0) away_since_ns_.store(0, std::memory_order_relaxed);
}

void QemuNbd::note_failure() noexcept {
  std::int64_t none = 0;
  away_since_ns_.compare_exchange_strong(none, now_ns(), std::memory_order_relaxed);
}

Duration QemuNbd::time_away() const noexcept {
  const std::int64_t since = away_since_ns_.load(std::memory_order_relaxed);
  return Duration(since == 0 ? 0 : now_ns() - since);
}

void QemuNbd::ask_restart() {
  std::lock_guard lock(guard_);
  if (pid_ <= 0 || is_stopping_) return;
  is_restart_asked_ = true;
  note_failure();
  ::kill(pid_, SIGKILL);
}

std::optional<Error> QemuNbd::death() const {
  std::lock_guard lock(guard_);
  return death_;
}

std::string QemuNbd::words() const {
  std::lock_guard lock(guard_);
  return last_words(said_);
}

}  // namespace diskferry::foreign
