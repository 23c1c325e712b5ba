// ssh with two forwarded sockets, and a client on this end of the first.
#include "gateway/daemon/ssh_target.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/client.hpp"
#include "gateway/daemon/remote_target.hpp"
#include "gateway/daemon/tunnel.hpp"

#include <array>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>

#include <openssl/rand.h>

namespace diskferry::daemon {
namespace {

/// Logging in, starting the gateway and its first answer.
constexpr Duration ready_limit = std::chrono::seconds(30);
constexpr std::uint16_t ssh_port = 22;
constexpr Duration ready_pause = std::chrono::milliseconds(100);

/// The folder of the gateway over there: a name that nobody can have guessed and made before.
Result<std::string> remote_folder() {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    return unexpected(fail(ErrorKind::internal, "make a name").why("no random numbers"));
  std::string name = "/tmp/diskferry-";
  for (const unsigned char byte : bytes) name += fmt::format("{:02x}", byte);
  return name;
}

struct Places {
  std::string local{};   ///< folder here
  std::string remote{};  ///< folder there
};

/// What a shell at the other end would make something else of is refused, and so is what ssh would take for
/// an option.
Result<void> check_plain(const ImageUri& uri) {
  const auto is_plain = [](std::string_view text) {
    return text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/@%") ==
               std::string_view::npos &&
           !text.starts_with('-');
  };
  if (!uri.host().empty() && is_plain(uri.host()) && is_plain(uri.user()) && is_plain(uri.path())) return {};
  return unexpected(fail(ErrorKind::invalid_argument, "reach the other gateway", uri.to_string())
                        .why("a host, user or path has characters that do not go through ssh unchanged"));
}

std::vector<std::string> ssh_words(const ImageUri& uri, const Places& places, const std::string& run_folder) {
  std::vector<std::string> words{"ssh", "-T",
                                 "-o",  "BatchMode=yes",
                                 "-o",  "ExitOnForwardFailure=yes",
                                 "-o",  "StreamLocalBindUnlink=yes",
                                 "-o",  "ServerAliveInterval=5",
                                 "-o",  "ServerAliveCountMax=6",
                                 "-o",  "ConnectTimeout=10"};
  for (const std::string_view socket : {"control.sock", "nbd.sock"}) {
    words.emplace_back("-L");
    words.push_back(fmt::format("{}/{}:{}/{}", places.local, socket, places.remote, socket));
  }
  if (uri.port()) {
    words.emplace_back("-p");
    words.push_back(fmt::format("{}", *uri.port()));
  }
  words.push_back(uri.user().empty() ? uri.host() : uri.user() + "@" + uri.host());
  words.push_back(uri.path().size() > 1 ? uri.path() : "diskferryd");
  words.insert(words.end(), {"--for-one-move", places.remote, "--run-folder", run_folder});
  return words;
}

/// RemoteTarget over the tunnel; ends the tunnel, and with it the gateway, when it is closed.
class SshTarget final : public TargetGateway {
 public:
  SshTarget(Clock& clock, std::unique_ptr<Tunnel> tunnel, std::string folder)
      : clock_(clock), tunnel_(std::move(tunnel)), folder_(std::move(folder)) {}

  void set_inner(std::unique_ptr<TargetGateway> inner) { inner_ = std::move(inner); }
  Tunnel& tunnel() noexcept { return *tunnel_; }

  /// Its disks are reached through ssh's port, and encrypted by ssh.
  Task<Result<GatewayFacts>> facts() override {
    DISKFERRY_CO_TRY(GatewayFacts facts, co_await inner_->facts());
    facts.nbd_port = ssh_port;
    facts.nbd_requires_tls = true;
    co_return facts;
  }
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest request) override {
    return inner_->look(std::move(request));
  }
  Task<Result<StorageView>> see(StorageQuestion question) override {
    return inner_->see(std::move(question));
  }
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest request) override {
    return inner_->prepare(std::move(request));
  }
  Task<Result<void>> drop_caches(std::string move) override { return inner_->drop_caches(std::move(move)); }
  Task<Result<void>> finish(std::string move, TargetEnd end) override {
    return inner_->finish(std::move(move), end);
  }
  Task<Result<TargetMachineAnswer>> machine(TargetMachineCall call) override {
    return inner_->machine(std::move(call));
  }
  Result<std::string> export_uri(const PreparedDisk& disk, unsigned connections) const override {
    DISKFERRY_TRY(ImageUri uri, ImageUri::parse("nbd+unix:///?socket=/"));
    uri.set_path("/" + disk.export_name);
    uri.set_query("socket", folder_ + "/nbd.sock");
    uri.set_query("connections", fmt::format("{}", connections));
    return uri.to_uri_with_secrets();
  }
  /// Through the tunnel, as the disks go.
  Task<Result<std::uint64_t>> measure_link(LinkProbe limits) override { return inner_->measure_link(limits); }
  Task<void> close() override {
    if (inner_) co_await inner_->close();
    inner_.reset();
    co_await tunnel_->stop(clock_);
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 private:
  Clock& clock_;
  std::unique_ptr<Tunnel> tunnel_;
  const std::string folder_;
  std::unique_ptr<TargetGateway> inner_;
};

Task<Result<std::unique_ptr<control::ControlClient>>> wait_for_gateway(DriverContext& context, Tunnel& tunnel,
                                                                       std::string socket) {
  const TimePoint end = Clock::after(context.clock.now(), ready_limit);
  while (true) {
    auto client = co_await control::ControlClient::connect(
        context, {.kind = control::GatewayAddress::Kind::unix_socket, .path = socket});
    if (client) co_return client;
    if (auto ended = tunnel.ended()) co_return unexpected(*std::move(ended));
    if (context.clock.now() >= end)
      co_return unexpected(
          fail(ErrorKind::timed_out, "start the gateway through ssh").why(client.error().message()));
    DISKFERRY_CO_CHECK(co_await context.clock.sleep_for(ready_pause));
  }
}

}  // namespace

Task<Result<std::unique_ptr<TargetGateway>>> connect_ssh_target(DriverContext& context, std::string address,
                                                                std::string run_folder) {
  DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(address));
  DISKFERRY_CO_CHECK(check_plain(uri));
  DISKFERRY_CO_TRY(const std::string remote, remote_folder());
  const std::string local = run_folder + "/ssh-" + remote.substr(remote.rfind('-') + 1, 8);
  std::error_code failed;
  std::filesystem::create_directories(run_folder, failed);
  if (::mkdir(local.c_str(), 0700) != 0) co_return unexpected(errno_error(errno, "make the folder", local));
  auto tunnel = std::make_unique<Tunnel>();
  auto started =
      tunnel->start(ssh_words(uri, {.local = local, .remote = remote}, run_folder), local + "/ssh.log");
  auto target = std::make_unique<SshTarget>(context.clock, std::move(tunnel), local);
  if (!started) {
    co_await target->close();
    co_return unexpected(std::move(started).error());
  }
  auto client = co_await wait_for_gateway(context, target->tunnel(), local + "/control.sock");
  if (!client) {
    co_await target->close();
    co_return unexpected(std::move(client).error().in("reach " + uri.to_string()));
  }
  target->set_inner(make_local_target(context.clock, *std::move(client)));
  co_return std::unique_ptr<TargetGateway>(std::move(target));
}

}  // namespace diskferry::daemon
