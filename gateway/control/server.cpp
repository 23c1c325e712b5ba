// Listeners, who may come in, and the orderly end.
#include "gateway/control/server.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "diskferry/task_group.hpp"
#include "drivers/support/blocking_pool.hpp"
#include "gateway/control/session.hpp"
#include "gateway/control/stream.hpp"
#include "gateway/control/web.hpp"
#include "gateway/nbd/listener.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <grp.h>
#include <optional>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace diskferry::control {
using nbd_server::ListenAddress;
using nbd_server::Listener;
using Severity = ServerOptions::Severity;

namespace {

/// When descriptors have run out, accepting again at once would only burn time.
constexpr Duration accept_pause = std::chrono::milliseconds(100);
/// How often a shutdown looks whether requests have ended.
constexpr Duration drain_step = std::chrono::milliseconds(10);
/// The kernel's own bound on the groups of a process is 65536; nobody's is near this.
constexpr std::size_t groups_max = 1024;

std::optional<gid_t> group_named(const std::string& name) {
  std::array<char, 65536> buffer;
  struct group entry{};
  struct group* found = nullptr;
  if (getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::nullopt;
  return found->gr_gid;
}

/// True when the process at the other end of a UNIX socket is root, our own user, or of the group; as it was
/// when it connected, told by the kernel.
bool may_operate(int fd, std::optional<gid_t> group, std::string& name) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  name = fmt::format("uid {}", peer.uid);
  if (peer.uid == 0 || peer.uid == geteuid()) return true;
  if (!group) return false;
  if (peer.gid == *group) return true;
  std::array<gid_t, groups_max> groups;
  length = sizeof groups;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) != 0) return false;
  const std::size_t count = length / sizeof(gid_t);
  return std::find(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(count), *group) !=
         groups.begin() + static_cast<std::ptrdiff_t>(count);
}

bool contains_any(const std::vector<std::string>& list, const std::vector<std::string>& names) {
  return std::ranges::any_of(names,
                             [&](const auto& name) { return std::ranges::find(list, name) != list.end(); });
}

/// What clients come through.
enum class Door : std::uint8_t { unix_socket, tcp, web };
constexpr std::size_t door_count = 3;

struct Opening {
  std::unique_ptr<Listener> listener;
  Door door;
};

/// The errors of a listener, without its advice for another program.
Error listen_error(const Error& error, std::string object) {
  Error made = fail(error.kind(), "listen for commands", std::move(object));
  if (error.cause()) made = std::move(made).cause(error.cause());
  if (error.kind() == ErrorKind::in_use)
    return std::move(made).why("somebody listens there already").remedy("is another diskferryd running?");
  return std::move(made).why(error.why());
}

}  // namespace

struct Server::State {
  State(DriverContext& driver_context, GatewayApi& gateway, ServerOptions server_options)
      : context(driver_context),
        options(std::move(server_options)),
        accepting(context.reactors[0]),
        serving(context.reactors[0]),
        responder(gateway, options.limits),
        web_responder(gateway, options.web),
        shared{.responder = responder,
               .clock = context.clock,
               .limits = options.limits,
               .changed = [this](std::string text) { log(Severity::info, std::move(text)); }},
        web_shared{.responder = web_responder,
                   .clock = context.clock,
                   .limits = options.web.limits,
                   .headers = web_headers} {}

  void log(Severity severity, std::string text) const {
    if (options.log) options.log(severity, std::move(text));
  }
  Task<Result<void>> listen_unix();
  Task<Result<void>> listen_tcp();
  Task<Result<void>> listen_for_web();
  Task<Result<void>> bind_tcp(std::string host, std::uint16_t port, Door door);
  Task<Result<void>> accept_from(Listener& listener, Door door);
  Task<Result<void>> serve_unix(int fd);
  Task<Result<void>> serve_tcp(int fd, Door door);
  Task<Result<void>> serve_tls(std::unique_ptr<nbd_server::Stream> connection, Door door);
  Task<Result<void>> serve(std::unique_ptr<ByteStream> stream, Caller caller, SessionContext& session);
  const Limits& limits_of(Door door) const { return door == Door::web ? options.web.limits : options.limits; }
  std::atomic<std::size_t>& connections_of(Door door) { return connections[static_cast<std::size_t>(door)]; }
  Task<Result<void>> refuse(ByteStream& stream, std::string who, std::string why);
  void report(const std::string& who, const Result<void>& result) const;

  DriverContext& context;
  ServerOptions options;
  std::optional<gid_t> group{};
  std::shared_ptr<nbd_server::TlsContext> tls{};
  std::shared_ptr<nbd_server::TlsContext> web_tls{};  ///< nullptr: without TLS
  std::vector<Opening> openings{};
  TaskGroup accepting;
  TaskGroup serving;
  ApiResponder responder;
  WebResponder web_responder;
  SessionContext shared;
  SessionContext web_shared;
  std::array<std::atomic<std::size_t>, door_count> connections{};
};

Server::Server(DriverContext& context, GatewayApi& api, ServerOptions options)
    : state_(std::make_unique<State>(context, api, std::move(options))) {}
Server::~Server() = default;

Task<Result<void>> Server::State::listen_unix() {
  const std::string& path = options.socket;
  if (!options.socket_group.empty()) {
    group = co_await context.blocking_pool.run([name = options.socket_group] { return group_named(name); });
    if (!group)
      co_return unexpected(fail(ErrorKind::not_found, "listen for commands", printable(path))
                               .why(fmt::format("there is no group '{}'", printable(options.socket_group))));
  }
  auto bound = co_await Listener::bind(context, context.reactors[0],
                                       {.kind = ListenAddress::Kind::unix_socket, .path = path});
  if (!bound) co_return unexpected(listen_error(bound.error(), printable(path)));
  for (auto& listener : *bound) openings.push_back({std::move(listener), Door::unix_socket});
  // Until here only our own user could connect: the others have no right to write to it.
  const mode_t mode = group ? 0660 : 0600;
  if ((group && chown(path.c_str(), static_cast<uid_t>(-1), *group) != 0) || chmod(path.c_str(), mode) != 0)
    co_return unexpected(errno_error(errno, "listen for commands", printable(path)));
  co_return Result<void>{};
}

Task<Result<void>> Server::State::listen_tcp() {
  if (options.allow.empty() && options.peers.empty())
    co_return unexpected(fail(ErrorKind::invalid_argument, "listen for commands", options.host)
                             .why("nobody is allowed to command this gateway from other hosts"));
  // Names are compared here and not by TLS, so that whoever is not on the list is told.
  DISKFERRY_CO_TRY(tls, nbd_server::TlsContext::make({.mode = nbd_server::TlsMode::require,
                                                      .certificates = options.certificates,
                                                      .verify_peer = true}));
  co_return co_await bind_tcp(options.host, options.port, Door::tcp);
}

Task<Result<void>> Server::State::listen_for_web() {
  if (!options.web.allow.empty()) {
    DISKFERRY_CO_TRY(web_tls, nbd_server::TlsContext::make({.mode = nbd_server::TlsMode::require,
                                                            .certificates = options.web.certificates,
                                                            .verify_peer = true}));
  }
  co_return co_await bind_tcp(options.web.host, options.web.port, Door::web);
}

Task<Result<void>> Server::State::bind_tcp(std::string host, std::uint16_t port, Door door) {
  auto bound =
      co_await Listener::bind(context, context.reactors[0], {.host = host, .port = port, .path = {}});
  if (!bound) co_return unexpected(listen_error(bound.error(), printable(fmt::format("{}:{}", host, port))));
  for (auto& listener : *bound) openings.push_back({std::move(listener), door});
  co_return Result<void>{};
}

Task<Result<void>> Server::start() {
  if (!state_->options.socket.empty()) DISKFERRY_CO_CHECK(co_await state_->listen_unix());
  if (state_->options.listens_on_tcp) DISKFERRY_CO_CHECK(co_await state_->listen_tcp());
  if (state_->options.web.listens) DISKFERRY_CO_CHECK(co_await state_->listen_for_web());
  for (const auto& [listener, door] : state_->openings)
    state_->accepting.spawn(state_->accept_from(*listener, door));
  co_return Result<void>{};
}

std::vector<std::string> Server::addresses() const {
  std::vector<std::string> addresses;
  for (const auto& [listener, door] : state_->openings) {
    if (door == Door::web) continue;
    const ListenAddress& address = listener->address();
    GatewayAddress shown;
    if (listener->is_tcp()) {
      shown.kind = GatewayAddress::Kind::https;
      shown.host = address.host;
      shown.port = address.port;
    } else {
      shown.path = address.path;
    }
    addresses.push_back(shown.to_string());
  }
  return addresses;
}

std::vector<std::string> Server::web_addresses() const {
  std::vector<std::string> addresses;
  for (const auto& [listener, door] : state_->openings) {
    if (door != Door::web) continue;
    const ListenAddress& address = listener->address();
    const bool has_brackets = address.host.contains(':');
    addresses.push_back(fmt::format("{}://{}{}{}:{}/", state_->web_tls ? "https" : "http",
                                    has_brackets ? "[" : "", address.host, has_brackets ? "]" : "",
                                    address.port));
  }
  return addresses;
}

std::size_t Server::connections() const {
  return state_->connections_of(Door::unix_socket).load() + state_->connections_of(Door::tcp).load();
}

namespace {
/// Says goodbye to a client that is one too many, without waiting for it.
void turn_away(int fd) {
  HttpResponse response =
      to_response(fail(ErrorKind::too_large, "accept client").why("too many clients are connected"));
  response.status = 503;
  response.keep_alive = false;
  const std::string text = to_wire(response);
  (void)send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  close(fd);
}
}  // namespace

Task<Result<void>> Server::State::accept_from(Listener& listener, Door door) {
  while (!shared.stopping.load()) {
    auto accepted = co_await listener.accept();
    if (!accepted) {
      if (accepted.error().kind() != ErrorKind::too_large) co_return unexpected(std::move(accepted).error());
      DISKFERRY_CO_CHECK(co_await context.clock.sleep_for(accept_pause));
      continue;
    }
    if (connections_of(door).load() >= limits_of(door).connections_max) {
      log(Severity::warn, "a client was turned away: too many are connected");
      if (door == Door::unix_socket) {
        turn_away(*accepted);
      } else {
        close(*accepted);
      }
      continue;
    }
    ++connections_of(door);
    serving.spawn(door == Door::unix_socket ? serve_unix(*accepted) : serve_tcp(*accepted, door));
  }
  co_return Result<void>{};
}

/// What a client did wrong is for the log; it never ends the server.
void Server::State::report(const std::string& who, const Result<void>& result) const {
  if (result || result.error().kind() == ErrorKind::cancelled) return;
  const bool is_alarming =
      result.error().kind() == ErrorKind::permission || result.error().kind() == ErrorKind::protocol;
  log(is_alarming ? Severity::warn : Severity::debug,
      fmt::format("{}: {}", printable(who), result.error().message()));
}

Task<Result<void>> Server::State::serve(std::unique_ptr<ByteStream> stream, Caller caller,
                                        SessionContext& session) {
  const std::string name = caller.name;
  report(name, co_await run_session(session, *stream, std::move(caller)));
  co_return Result<void>{};
}

/// Tells a client why it may not come in.
Task<Result<void>> Server::State::refuse(ByteStream& stream, std::string who, std::string why) {
  const Error error = fail(ErrorKind::permission, "accept client", printable(who)).why(std::move(why));
  HttpResponse response = to_response(error);
  response.keep_alive = false;
  const std::string text = to_wire(response);
  (void)co_await with_deadline(context.clock, options.limits.write_time, "answer",
                               stream.write(std::as_bytes(std::span(text))));
  (void)co_await part_from(stream, context.clock, options.limits);
  log(Severity::warn, error.message());
  co_return Result<void>{};
}

Task<Result<void>> Server::State::serve_unix(int fd) {
  Caller caller{.rights = Rights::operate};
  const bool may = may_operate(fd, group, caller.name);
  auto stream = make_stream(context.reactors[0], fd, fd);
  if (stream && may) {
    (void)co_await serve(std::move(*stream), std::move(caller), shared);
  } else if (stream) {
    (void)co_await refuse(**stream, caller.name, "it is neither root nor the gateway's user or group");
  }
  --connections_of(Door::unix_socket);
  co_return Result<void>{};
}

Task<Result<void>> Server::State::serve_tcp(int fd, Door door) {
  nbd_server::set_up_connection(fd, limits_of(door).keepalive_time);
  auto connection = nbd_server::Stream::make(context.reactors[0], fd, fd);
  if (connection && door == Door::web && !web_tls) {
    (void)co_await serve(make_stream(std::move(*connection)), {.name = "a browser", .rights = Rights::look},
                         web_shared);
  } else if (connection) {
    (void)co_await serve_tls(std::move(*connection), door);
  }
  --connections_of(door);
  co_return Result<void>{};
}

Task<Result<void>> Server::State::serve_tls(std::unique_ptr<nbd_server::Stream> connection, Door door) {
  const auto proved = co_await with_deadline(context.clock, limits_of(door).tls_handshake_time, "start TLS",
                                             connection->start_tls(door == Door::web ? *web_tls : *tls));
  if (!proved) {
    report("a client over TCP", unexpected(proved.error()));
    co_return Result<void>{};
  }
  auto stream = make_stream(std::move(connection));
  std::string name = proved->names.empty() ? std::string() : proved->names.front();
  if (door == Door::web && contains_any(options.web.allow, proved->names))
    co_return co_await serve(std::move(stream), {.name = std::move(name), .rights = Rights::look},
                             web_shared);
  if (door == Door::web) co_return co_await refuse(*stream, std::move(name), "this name is not in web.allow");
  if (contains_any(options.allow, proved->names))
    co_return co_await serve(std::move(stream), {.name = std::move(name), .rights = Rights::operate}, shared);
  if (contains_any(options.peers, proved->names))
    co_return co_await serve(std::move(stream), {.name = std::move(name), .rights = Rights::peer}, shared);
  co_return co_await refuse(*stream, std::move(name),
                            "this name is in neither control.allow nor control.peers");
}

Task<Result<void>> Server::stop() {
  State& state = *state_;
  state.shared.stopping = true;
  state.web_shared.stopping = true;
  for (const auto& opening : state.openings) opening.listener->cancel();
  state.accepting.cancel();
  (void)co_await state.accepting.join();
  state.openings.clear();
  const TimePoint until = Clock::after(state.context.clock.now(), state.options.limits.drain_time);
  const auto handling = [&state] { return state.shared.handling.load() + state.web_shared.handling.load(); };
  while (handling() != 0 && state.context.clock.now() < until) {
    if (!co_await state.context.clock.sleep_for(drain_step)) break;
  }
  state.serving.cancel();
  (void)co_await state.serving.join();
  co_return Result<void>{};
}

}  // namespace diskferry::control
