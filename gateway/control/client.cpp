// Calls over HTTP. A call takes the kept connection or makes one, and gives it back when the answer is whole.
#include "gateway/control/client.hpp"

#include "diskferry/image_uri.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/remote_events.hpp"
#include "gateway/control/stream.hpp"
#include "gateway/control/target.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <mutex>
#include <optional>

#include <boost/asio/this_coro.hpp>

namespace diskferry::control {
namespace {

/// A connection is used on the executor it was made on: a call from another one makes its own.
struct Connection {
  std::unique_ptr<ByteStream> stream{};
  std::unique_ptr<HttpReader> reader{};  // reads from stream
  Executor executor{};
  TimePoint used{};
};

}  // namespace

struct ControlClient::State {
  State(DriverContext& driver_context, std::string shown, Connector connect_with,
        ClientOptions client_options)
      : context(driver_context),
        name(std::move(shown)),
        connector(std::move(connect_with)),
        options(client_options) {}

  Task<Result<std::unique_ptr<Connection>>> take();
  void give_back(std::unique_ptr<Connection> connection);
  Task<Result<HttpResponse>> exchange(HttpRequest request);
  Task<Result<std::string>> call(std::string method, std::string target, std::string body = {});
  Task<Result<std::unique_ptr<EventSource>>> open_events(std::string target);
  template <class T>
  Task<Result<T>> call_for(std::string method, std::string target, std::string body = {});
  /// Says which gateway, where that is not plain: it is another host's, or the connection to it failed.
  Error at_gateway(Error error, bool is_its_own) const {
    const bool is_plain = is_its_own ? name.starts_with("unix:") : !error.object().empty();
    if (is_plain || error.kind() == ErrorKind::cancelled) return error;
    return std::move(error).in("gateway " + name);
  }

  DriverContext& context;
  const std::string name;
  const Connector connector;
  const ClientOptions options;
  const Limits limits{};
  GatewayInfo greeting{};
  std::int64_t clock_difference_ms = 0;
  std::mutex guard;
  std::unique_ptr<Connection> kept{};  // guard
  std::string certificate_name{};      // guard
};

Task<Result<std::unique_ptr<Connection>>> ControlClient::State::take() {
  const Executor executor = co_await boost::asio::this_coro::executor;
  {
    std::lock_guard lock(guard);
    const bool is_fresh =
        kept && kept->executor == executor && context.clock.now() - kept->used < limits.idle_connection_time;
    if (is_fresh && !kept->stream->is_disturbed()) co_return std::move(kept);
  }
  DISKFERRY_CO_TRY(auto stream,
                   co_await with_deadline(context.clock, options.connect_time, "connect", connector()));
  {
    std::lock_guard lock(guard);
    certificate_name = stream->peer_name();
  }
  auto made = std::make_unique<Connection>();
  made->reader = std::make_unique<HttpReader>(*stream, limits);
  made->stream = std::move(stream);
  made->executor = executor;
  co_return made;
}

void ControlClient::State::give_back(std::unique_ptr<Connection> connection) {
  connection->used = context.clock.now();
  std::lock_guard lock(guard);
  if (!kept) kept = std::move(connection);
}

Task<Result<HttpResponse>> ControlClient::State::exchange(HttpRequest request) {
  DISKFERRY_CO_TRY(auto connection, co_await take());
  const std::string text = to_wire(request, "diskferry");
  const auto sent = co_await connection->stream->write(std::as_bytes(std::span(text)));
  // A server that turns us away says why before it closes, whether it took the request or not.
  auto response = co_await connection->reader->read_response();
  if (!response) co_return unexpected(sent ? std::move(response).error() : sent.error());
  if (sent && response->keep_alive) give_back(std::move(connection));
  co_return std::move(*response);
}

Task<Result<std::string>> ControlClient::State::call(std::string method, std::string target,
                                                     std::string body) {
  HttpRequest request{.method = std::move(method), .target = std::move(target), .body = std::move(body)};
  auto response = co_await with_deadline(context.clock, options.request_time, "ask gateway",
                                         exchange(std::move(request)));
  if (!response) co_return unexpected(at_gateway(std::move(response).error(), false));
  if (response->status >= 300)
    co_return unexpected(at_gateway(error_from_json(response->body, response->status), true));
  co_return std::move(response->body);
}

template <class T>
Task<Result<T>> ControlClient::State::call_for(std::string method, std::string target, std::string body) {
  DISKFERRY_CO_TRY(const std::string text,
                   co_await call(std::move(method), std::move(target), std::move(body)));
  auto value = from_json<T>(text, Unknown::ignored, limits.json_depth_max * 2);
  if (!value)
    co_return unexpected(at_gateway(
        fail(ErrorKind::protocol, "ask gateway").why("its answer: " + value.error().why()), false));
  co_return std::move(*value);
}

namespace {
/// Connecting and the head of the answer; both within the time of one request.
Task<Result<std::unique_ptr<EventSource>>> begin_events(DriverContext& context, const Limits& limits,
                                                        const Connector& connector, std::string target) {
  DISKFERRY_CO_TRY(auto stream, co_await connector());
  auto reader = std::make_unique<HttpReader>(*stream, limits);
  const std::string text =
      to_wire({.method = "GET", .target = std::move(target), .keep_alive = false}, "diskferry");
  DISKFERRY_CO_CHECK(co_await stream->write(std::as_bytes(std::span(text))));
  DISKFERRY_CO_TRY(const HttpResponse head, co_await reader->read_head());
  if (head.status != 200) co_return unexpected(error_from_json(head.body, head.status));
  co_return make_remote_events(context.clock, limits, std::move(stream), std::move(reader));
}
}  // namespace

Task<Result<std::unique_ptr<EventSource>>> ControlClient::State::open_events(std::string target) {
  auto source = co_await with_deadline(context.clock, options.request_time, "ask gateway",
                                       begin_events(context, limits, connector, std::move(target)));
  if (!source) co_return unexpected(at_gateway(std::move(source).error(), true));
  co_return std::move(*source);
}

ControlClient::ControlClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlClient::~ControlClient() = default;

namespace {
Task<Result<std::unique_ptr<ByteStream>>> connect_local(std::string path) {
  auto stream = co_await connect_unix(path);
  if (stream) co_return std::move(*stream);
  Error error = std::move(stream).error();
  // No socket, or one that a daemon left behind.
  if (error.kind() == ErrorKind::not_found || error.kind() == ErrorKind::gone)
    error =
        fail(ErrorKind::not_found, "connect", error.object())
            .why("no gateway runs here")
            .remedy(
                "start it with 'systemctl start diskferryd', or 'diskferryd'; or name one with --gateway");
  if (error.kind() == ErrorKind::permission)
    error = std::move(error).remedy("become root, or a member of the gateway's group");
  co_return unexpected(std::move(error));
}
/// A coroutine of its own, because what a capturing lambda holds may be gone before its coroutine is.
Task<Result<std::unique_ptr<ByteStream>>> connect_remote(DriverContext& context, GatewayAddress address,
                                                         std::shared_ptr<nbd_server::TlsContext> tls) {
  co_return co_await connect_tls(context, std::move(address), std::move(tls));
}
}  // namespace

Task<Result<std::unique_ptr<ControlClient>>> ControlClient::connect(DriverContext& context,
                                                                    GatewayAddress address,
                                                                    ClientOptions options) {
  std::string name = address.to_string();
  if (address.kind == GatewayAddress::Kind::unix_socket)
    co_return co_await connect(
        context, std::move(name), [path = address.path] { return connect_local(path); }, options);
  DISKFERRY_CO_TRY(const auto tls, nbd_server::TlsContext::make_client(
                                       address.certificates,
                                       address.server_name.empty() ? address.host : address.server_name));
  co_return co_await connect(
      context, std::move(name), [&context, address, tls] { return connect_remote(context, address, tls); },
      options);
}

Task<Result<std::unique_ptr<ControlClient>>> ControlClient::connect(DriverContext& context, std::string name,
                                                                    Connector connector,
                                                                    ClientOptions options) {
  auto client = std::make_unique<ControlClient>(
      std::make_unique<State>(context, std::move(name), std::move(connector), options));
  const std::int64_t asked_ms = now_ms();
  DISKFERRY_CO_TRY(client->state_->greeting, co_await client->info());
  const std::int64_t answered_ms = now_ms();
  client->state_->clock_difference_ms =
      client->state_->greeting.time_ms - (asked_ms + (answered_ms - asked_ms) / 2);
  co_return client;
}

const GatewayInfo& ControlClient::greeting() const noexcept {
  return state_->greeting;
}
std::int64_t ControlClient::clock_difference_ms() const noexcept {
  return state_->clock_difference_ms;
}
std::string ControlClient::certificate_name() const {
  std::lock_guard lock(state_->guard);
  return state_->certificate_name;
}
const std::string& ControlClient::name() const noexcept {
  return state_->name;
}

Task<Result<GatewayInfo>> ControlClient::info() {
  return state_->call_for<GatewayInfo>("GET", "/v1/info");
}
Task<Result<std::vector<ExportDescription>>> ControlClient::exports() {
  return state_->call_for<std::vector<ExportDescription>>("GET", "/v1/exports");
}
Task<Result<ExportDescription>> ControlClient::add_export(ExportRequest request) {
  return state_->call_for<ExportDescription>("POST", "/v1/exports", to_json(request));
}
Task<Result<void>> ControlClient::remove_export(std::string name) {
  DISKFERRY_CO_CHECK(co_await state_->call("DELETE", "/v1/exports/" + escape(name)));
  co_return Result<void>{};
}
Task<Result<std::vector<JobDescription>>> ControlClient::jobs(JobFilter filter) {
  return state_->call_for<std::vector<JobDescription>>(
      "GET", fmt::format("/v1/jobs?limit={}{}", filter.jobs_max, filter.active_only ? "&active=true" : ""));
}
Task<Result<JobDescription>> ControlClient::job(std::string id) {
  return state_->call_for<JobDescription>("GET", "/v1/jobs/" + escape(id));
}
Task<Result<JobDescription>> ControlClient::create_job(JobRequest request) {
  return state_->call_for<JobDescription>("POST", "/v1/jobs", to_json(request));
}
Task<Result<std::string>> ControlClient::plan_job(JobRequest request) {
  return state_->call("POST", "/v1/plans", to_json(request));
}
Task<Result<JobDescription>> ControlClient::act_on_job(std::string id, JobAction action) {
  return state_->call_for<JobDescription>("POST",
                                          fmt::format("/v1/jobs/{}/{}", escape(id), to_string(action)));
}
Task<Result<JobDescription>> ControlClient::set_job(std::string id, JobSettings settings) {
  return state_->call_for<JobDescription>("POST", fmt::format("/v1/jobs/{}/set", escape(id)),
                                          to_json(settings));
}
Task<Result<std::unique_ptr<EventSource>>> ControlClient::events(EventFilter filter) {
  return state_->open_events(
      filter.job.empty() ? std::string("/v1/events")
                         : fmt::format("/v1/jobs/{}/events?after={}", escape(filter.job), filter.after));
}
Task<Result<std::string>> ControlClient::peer(PeerCall call) {
  return state_->call("POST", "/v1/peer/" + escape(call.verb), std::move(call.body_json));
}
Task<Result<std::string>> ControlClient::metrics() {
  return state_->call("GET", "/metrics");
}

}  // namespace diskferry::control
