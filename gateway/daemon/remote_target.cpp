// Each verb is one call with a JSON document.
#include "gateway/daemon/remote_target.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/link_probe.hpp"

#include <fmt/format.h>

namespace diskferry::daemon {
namespace {

/// As many as a move's disk has, unless it is told otherwise.
constexpr std::size_t probe_connections = 4;

Task<Result<void>> sink(control::ControlClient& client, std::string text) {
  DISKFERRY_CO_CHECK(co_await client.peer({.verb = "sink", .body_json = "{\"part\":\"" + text + "\"}"}));
  co_return Result<void>{};
}
LinkSender sender(control::ControlClient& client) {
  return [&client](std::string text) { return sink(client, std::move(text)); };
}

class RemoteTarget final : public TargetGateway {
 public:
  RemoteTarget(Clock& clock, std::unique_ptr<control::ControlClient> client, RemoteTargetOptions options,
               GatewayFacts facts)
      : clock_(clock), client_(std::move(client)), options_(std::move(options)), facts_(std::move(facts)) {}

  Task<Result<GatewayFacts>> facts() override {
    DISKFERRY_CO_TRY(const std::string text, co_await client_->peer({.verb = "facts", .body_json = "{}"}));
    co_return parse_gateway_facts(text);
  }
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest request) override {
    DISKFERRY_CO_TRY(const std::string text,
                     co_await client_->peer({.verb = "look", .body_json = to_json(request)}));
    co_return parse_target_disk_facts(text);
  }
  Task<Result<StorageView>> see(StorageQuestion question) override {
    DISKFERRY_CO_TRY(const std::string text,
                     co_await client_->peer({.verb = "see", .body_json = to_json(question)}));
    co_return parse_storage_view(text);
  }
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest request) override {
    DISKFERRY_CO_TRY(const std::string text,
                     co_await client_->peer({.verb = "prepare", .body_json = to_json(request)}));
    co_return parse_prepared_disk(text);
  }
  Task<Result<void>> drop_caches(std::string move) override {
    const FinishRequest request{.move = std::move(move)};
    DISKFERRY_CO_CHECK(co_await client_->peer({.verb = "drop-caches", .body_json = to_json(request)}));
    co_return Result<void>{};
  }
  Task<Result<void>> finish(std::string move, TargetEnd end) override {
    const FinishRequest request{.move = std::move(move), .end = end};
    DISKFERRY_CO_CHECK(co_await client_->peer({.verb = "finish", .body_json = to_json(request)}));
    co_return Result<void>{};
  }
  Task<Result<TargetMachineAnswer>> machine(TargetMachineCall call) override {
    DISKFERRY_CO_TRY(const std::string text,
                     co_await client_->peer({.verb = "machine", .body_json = to_json(call)}));
    co_return parse_target_machine_answer(text);
  }
  Result<std::string> export_uri(const PreparedDisk& disk, unsigned connections) const override {
    const bool is_v6 = options_.host.contains(':');
    DISKFERRY_TRY(ImageUri uri, ImageUri::parse(fmt::format(
                                    "{}://{}{}{}:{}/", facts_.nbd_requires_tls ? "nbds" : "nbd",
                                    is_v6 ? "[" : "", options_.host, is_v6 ? "]" : "", facts_.nbd_port)));
    uri.set_path("/" + disk.export_name);
    uri.set_query("connections", fmt::format("{}", connections));
    if (facts_.nbd_requires_tls) {
      uri.set_query("tls-certificates", options_.certificates);
      if (!options_.server_name.empty()) uri.set_query("tls-hostname", options_.server_name);
    }
    return uri.to_uri_with_secrets();
  }
  std::string certificate_name() const override { return client_->certificate_name(); }
  Task<Result<GatewayFacts>> reach(std::string address) override {
    DISKFERRY_CO_TRY(
        const std::string text,
        co_await client_->peer(
            {.verb = "reach", .body_json = to_json(ReachRequest{.address = std::move(address)})}));
    co_return parse_gateway_facts(text);
  }
  Task<Result<std::uint64_t>> measure_link(LinkProbe limits) override {
    std::vector<std::unique_ptr<control::ControlClient>> more;
    std::vector<LinkSender> senders{sender(*client_)};
    while (options_.connect_again && senders.size() < probe_connections) {
      DISKFERRY_CO_TRY(auto another, co_await options_.connect_again());
      senders.push_back(sender(*another));
      more.push_back(std::move(another));
    }
    co_return co_await diskferry::measure_link(clock_, std::move(senders), limits);
  }
  Task<void> close() override { co_return; }

 private:
  Clock& clock_;
  std::unique_ptr<control::ControlClient> client_;
  const RemoteTargetOptions options_;
  const GatewayFacts facts_;
};

}  // namespace

Task<Result<std::unique_ptr<TargetGateway>>> make_remote_target(
    Clock& clock, std::unique_ptr<control::ControlClient> client, RemoteTargetOptions options) {
  DISKFERRY_CO_TRY(const std::string text, co_await client->peer({.verb = "facts", .body_json = "{}"}));
  DISKFERRY_CO_TRY(GatewayFacts facts, parse_gateway_facts(text));
  if (facts.nbd_port == 0)
    co_return unexpected(fail(ErrorKind::unsupported, "use the gateway as a target", client->name())
                             .why("its NBD server listens on no TCP port")
                             .remedy("give it an address in [nbd] listen, nbds://[::]:10809"));
  co_return std::make_unique<RemoteTarget>(clock, std::move(client), std::move(options), std::move(facts));
}

std::unique_ptr<TargetGateway> make_local_target(Clock& clock,
                                                 std::unique_ptr<control::ControlClient> client) {
  return std::make_unique<RemoteTarget>(clock, std::move(client), RemoteTargetOptions{}, GatewayFacts{});
}

Task<Result<std::unique_ptr<TargetGateway>>> connect_target(DriverContext& context, std::string address,
                                                            std::string certificates) {
  DISKFERRY_CO_TRY(auto where, control::GatewayAddress::parse(address));
  if (where.kind != control::GatewayAddress::Kind::https)
    co_return unexpected(fail(ErrorKind::unsupported, "reach the other gateway", printable(address))
                             .why("another host's gateway is reached over TLS")
                             .remedy("say https://HOST[:PORT]"));
  if (!address.contains("certificates=")) where.certificates = certificates;
  const RemoteTargetOptions options{
      .host = where.host,
      .certificates = where.certificates,
      .server_name = where.server_name,
      .connect_again = [&context, where] { return control::ControlClient::connect(context, where); }};
  DISKFERRY_CO_TRY(auto client, co_await control::ControlClient::connect(context, std::move(where)));
  co_return co_await make_remote_target(context.clock, std::move(client), options);
}

}  // namespace diskferry::daemon
