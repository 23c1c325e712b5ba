// Each verb is one call with a JSON document.
#include "gateway/daemon/remote_target.hpp"

#include "diskferry/image_uri.hpp"

#include <fmt/format.h>

namespace diskferry::daemon {
namespace {

class RemoteTarget final : public TargetGateway {
 public:
  RemoteTarget(std::unique_ptr<control::ControlClient> client, RemoteTargetOptions options,
               GatewayFacts facts)
      : client_(std::move(client)), options_(std::move(options)), facts_(std::move(facts)) {}

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
  Task<void> close() override { co_return; }

 private:
  std::unique_ptr<control::ControlClient> client_;
  const RemoteTargetOptions options_;
  const GatewayFacts facts_;
};

}  // namespace

Task<Result<std::unique_ptr<TargetGateway>>> make_remote_target(
    std::unique_ptr<control::ControlClient> client, RemoteTargetOptions options) {
  DISKFERRY_CO_TRY(const std::string text, co_await client->peer({.verb = "facts", .body_json = "{}"}));
  DISKFERRY_CO_TRY(GatewayFacts facts, parse_gateway_facts(text));
  if (facts.nbd_port == 0)
    co_return unexpected(fail(ErrorKind::unsupported, "use the gateway as a target", client->name())
                             .why("its NBD server listens on no TCP port")
                             .remedy("give it an address in [nbd] listen, nbds://[::]:10809"));
  co_return std::make_unique<RemoteTarget>(std::move(client), std::move(options), std::move(facts));
}

std::unique_ptr<TargetGateway> make_local_target(std::unique_ptr<control::ControlClient> client) {
  return std::make_unique<RemoteTarget>(std::move(client), RemoteTargetOptions{}, GatewayFacts{});
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
      .host = where.host, .certificates = where.certificates, .server_name = where.server_name};
  DISKFERRY_CO_TRY(auto client, co_await control::ControlClient::connect(context, std::move(where)));
  co_return co_await make_remote_target(std::move(client), options);
}

}  // namespace diskferry::daemon
