// Listeners and sessions, and their orderly end.
#include "gateway/nbd/server.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/nbd/listener.hpp"
#include "gateway/nbd/session.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <mutex>
#include <set>
#include <unistd.h>

namespace diskferry::nbd_server {
namespace asio = boost::asio;
using Severity = ServerOptions::Severity;

namespace {
/// When descriptors have run out, accepting again at once would only burn time.
constexpr Duration accept_pause = std::chrono::milliseconds(100);
}  // namespace

struct Server::State {
  State(DriverContext& driver_context, ServerOptions server_options)
      : context(driver_context),
        options(std::move(server_options)),
        payloads(options.limits.payload_memory_bytes),
        accepting(context.reactors[0]),
        serving(context.reactors[0]),
        shared{.exports = exports,
               .limits = options.limits,
               .tls = nullptr,
               .buffers = payloads,
               .clock = context.clock} {}

  void log(Severity severity, std::string text) const {
    if (options.log) options.log(severity, std::move(text));
  }
  Result<void> load_tls();
  Task<Result<void>> bind_all();
  Task<Result<void>> accept_from(Listener& listener);
  Result<void> begin_session(int in, int out, ListenAddress::Tls tls);
  Task<Result<void>> run_session(std::shared_ptr<Session> session);
  void session_ended(const std::shared_ptr<Session>& session);
  std::vector<std::shared_ptr<Session>> sessions_in(const ExportPtr& of) const;
  void close_unused_descriptors();

  DriverContext& context;
  ServerOptions options;
  ExportTable exports;
  BufferPool payloads;
  std::vector<std::unique_ptr<Listener>> listeners;
  TaskGroup accepting;
  TaskGroup serving;
  SessionContext shared;

  mutable std::mutex guard;
  std::set<std::shared_ptr<Session>> sessions;  // guard
  WaitQueue session_left;                       // guard
  bool stopping = false;                        // guard
  bool had_client = false;                      // guard
  std::size_t next_reactor = 0;                 // guard
  AsyncEvent last_client_left;
  bool started = false;
};

Server::Server(DriverContext& context, ServerOptions options)
    : state_(std::make_unique<State>(context, std::move(options))) {}

Server::~Server() {
  state_->close_unused_descriptors();
}

ExportTable& Server::exports() noexcept {
  return state_->exports;
}
const TlsOptions& Server::tls() const noexcept {
  return state_->options.tls;
}

void Server::State::close_unused_descriptors() {
  for (const int socket : options.listening_sockets) close(socket);
  options.listening_sockets.clear();
  if (options.connected_in >= 0) close(options.connected_in);
  if (options.connected_out >= 0 && options.connected_out != options.connected_in)
    close(options.connected_out);
  options.connected_in = options.connected_out = -1;
}

Result<void> Server::State::load_tls() {
  const bool any_listener = std::ranges::any_of(
      options.listen, [](const ListenAddress& one) { return one.tls != ListenAddress::Tls::by_mode; });
  const bool any_export =
      std::ranges::any_of(exports.all(), [](const ExportPtr& one) { return one->options().requires_tls; });
  if (options.tls.mode == TlsMode::off && !any_listener) {
    if (any_export)
      return unexpected(fail(ErrorKind::invalid_argument, "set up TLS")
                            .why("an export needs TLS, but TLS is off")
                            .remedy("say --tls on or --tls require"));
    return {};
  }
  DISKFERRY_TRY(shared.tls, TlsContext::make(options.tls));
  return {};
}

Task<Result<void>> Server::State::bind_all() {
  const Executor executor = context.reactors[0];
  for (const ListenAddress& address : options.listen) {
    DISKFERRY_CO_TRY(auto bound, co_await Listener::bind(context, executor, address));
    for (auto& one : bound) listeners.push_back(std::move(one));
  }
  for (const int socket : std::exchange(options.listening_sockets, {})) {
    DISKFERRY_CO_TRY(auto adopted, Listener::adopt(executor, socket));
    listeners.push_back(std::move(adopted));
  }
  co_return Result<void>{};
}

Task<Result<void>> Server::start() {
  DISKFERRY_ASSERT(!state_->started, "a server is started once");
  DISKFERRY_CO_CHECK(state_->load_tls());
  DISKFERRY_CO_CHECK(co_await state_->bind_all());
  if (state_->options.connected_in >= 0) {
    state_->options.ends_with_last_client = true;
    const int in = std::exchange(state_->options.connected_in, -1);
    const int out = std::exchange(state_->options.connected_out, -1);
    DISKFERRY_CO_CHECK(state_->begin_session(in, out, ListenAddress::Tls::by_mode));
  }
  for (const auto& listener : state_->listeners) state_->accepting.spawn(state_->accept_from(*listener));
  state_->started = true;
  co_return Result<void>{};
}

std::vector<std::string> Server::addresses(std::string_view export_name) const {
  std::vector<std::string> all;
  const ExportPtr named = state_->exports.find(export_name);
  const bool needs_tls =
      state_->options.tls.mode == TlsMode::require || (named != nullptr && named->options().requires_tls);
  for (const auto& listener : state_->listeners) {
    ListenAddress address = listener->address();
    // What a client has to say to get in.
    if (address.tls == ListenAddress::Tls::by_mode && needs_tls) address.tls = ListenAddress::Tls::required;
    all.push_back(address.to_uri(export_name));
  }
  return all;
}

Task<Result<void>> Server::State::accept_from(Listener& listener) {
  // One line a second says it all; clients that keep knocking must not fill the log.
  TimePoint last_line{};
  const auto log_now_and_then = [&](const Error& error) {
    if (context.clock.now() - last_line <= std::chrono::seconds(1)) return;
    last_line = context.clock.now();
    log(Severity::warn, error.message());
  };
  while (!co_await is_cancelled()) {
    auto accepted = co_await listener.accept();
    if (!accepted) {
      if (accepted.error().kind() == ErrorKind::cancelled) co_return Result<void>{};
      if (accepted.error().kind() != ErrorKind::too_large) {
        log(Severity::warn, accepted.error().message());
        co_return unexpected(std::move(accepted).error());
      }
      log_now_and_then(accepted.error());
      DISKFERRY_CO_CHECK(co_await context.clock.sleep_for(accept_pause));
      continue;
    }
    if (listener.is_tcp()) set_up_connection(*accepted, options.limits.keepalive_time);
    auto begun = begin_session(*accepted, *accepted, listener.address().tls);
    if (!begun) log_now_and_then(begun.error());
  }
  co_return Result<void>{};
}

Result<void> Server::State::begin_session(int in, int out, ListenAddress::Tls tls) {
  std::shared_ptr<Session> session;
  Executor executor;
  {
    std::lock_guard lock(guard);
    if (stopping || sessions.size() >= options.limits.connections_max) {
      close(in);
      if (out != in) close(out);
      if (stopping) return {};
      return unexpected(
          fail(ErrorKind::too_large, "accept client")
              .why(fmt::format("there are {} connections already", options.limits.connections_max)));
    }
    executor = context.reactors[next_reactor++ % context.reactors.size()];
    DISKFERRY_TRY(auto stream, Stream::make(executor, in, out));
    SessionOptions session_options{
        .executor = executor, .tls_mode = options.tls.mode, .direct_tls = tls == ListenAddress::Tls::direct};
    if (tls != ListenAddress::Tls::by_mode) session_options.tls_mode = TlsMode::require;
    session = std::make_shared<Session>(shared, std::move(stream), std::move(session_options));
    sessions.insert(session);
    had_client = true;
  }
  serving.spawn_on(executor, run_session(std::move(session)));
  return {};
}

Task<Result<void>> Server::State::run_session(std::shared_ptr<Session> session) {
  auto ended = co_await session->run();
  if (!ended) {
    // A client's end is the client's business, not a failure of the server.
    const bool is_ours = ended.error().kind() == ErrorKind::internal;
    log(is_ours ? Severity::error : Severity::info, ended.error().message());
  }
  session_ended(session);
  co_return Result<void>{};
}

void Server::State::session_ended(const std::shared_ptr<Session>& session) {
  std::lock_guard lock(guard);
  sessions.erase(session);
  session_left.wake_all();
  if (sessions.empty() && had_client && options.ends_with_last_client) last_client_left.set();
}

std::vector<std::shared_ptr<Session>> Server::State::sessions_in(const ExportPtr& of) const {
  std::lock_guard lock(guard);
  std::vector<std::shared_ptr<Session>> found;
  for (const auto& session : sessions) {
    if (of == nullptr || session->entered() == of) found.push_back(session);
  }
  return found;
}

Task<Result<void>> Server::wait() {
  (void)co_await state_->last_client_left.wait();
  co_return Result<void>{};
}

Task<Result<void>> Server::disconnect(ExportPtr from) {
  while (true) {
    const auto inside = state_->sessions_in(from);
    if (inside.empty()) {
      if (from->clients() == 0) co_return Result<void>{};
      // Somebody is between the handshake's decision and being listed here.
      DISKFERRY_CO_CHECK(co_await state_->context.clock.sleep_for(std::chrono::milliseconds(1)));
      continue;
    }
    for (const auto& session : inside) session->stop();
    std::unique_lock lock(state_->guard);
    // One that ended since is not in the set any more: then there is nothing to wait for.
    if (std::ranges::none_of(inside, [&](const auto& one) { return state_->sessions.contains(one); }))
      continue;
    if (!co_await state_->session_left.wait(lock))
      co_return unexpected(cancelled_error("disconnect clients"));
  }
}

namespace {
Task<Result<void>> cancel_on(Listener& listener) {
  listener.cancel();
  co_return Result<void>{};
}
}  // namespace

Task<Result<void>> Server::stop() {
  // An orderly end has its own deadlines; being cancelled is what usually leads here.
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  State& state = *state_;
  {
    std::lock_guard lock(state.guard);
    state.stopping = true;
  }
  TaskGroup cancelling(state.context.reactors[0]);
  for (const auto& listener : state.listeners) cancelling.spawn(cancel_on(*listener));
  (void)co_await cancelling.join();
  state.accepting.cancel();
  (void)co_await state.accepting.join();
  state.listeners.clear();
  for (const auto& session : state.sessions_in(nullptr)) session->stop();
  (void)co_await state.serving.join();
  Result<void> result;
  for (const ExportPtr& one : state.exports.all()) {
    if (!one->options().writable) continue;
    auto flushed = co_await one->hold().device().flush();
    if (!flushed && result) result = unexpected(flushed.error().with_step("flush export " + one->name()));
  }
  co_return result;
}

std::size_t Server::sessions() const {
  std::lock_guard lock(state_->guard);
  return state_->sessions.size();
}

Result<std::vector<int>> activated_sockets() {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count_text = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count_text == nullptr) return std::vector<int>{};
  const std::string_view pid_view(pid);
  const std::string_view count_view(count_text);
  long for_pid = 0;
  int count = 0;
  const auto pid_parsed = std::from_chars(pid_view.data(), pid_view.data() + pid_view.size(), for_pid);
  const auto count_parsed = std::from_chars(count_view.data(), count_view.data() + count_view.size(), count);
  const bool ok = pid_parsed.ec == std::errc() && count_parsed.ec == std::errc() && count >= 0 && count <= 64;
  const bool for_us = ok && for_pid == getpid();
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  if (!ok)
    return unexpected(fail(ErrorKind::invalid_argument, "take over sockets")
                          .why("LISTEN_PID or LISTEN_FDS is not a sensible number"));
  std::vector<int> sockets;
  constexpr int first = 3;  // SD_LISTEN_FDS_START
  for (int fd = first; for_us && fd < first + count; ++fd) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    sockets.push_back(fd);
  }
  return sockets;
}

}  // namespace diskferry::nbd_server
