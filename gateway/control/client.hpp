// ControlClient: a gateway elsewhere, through its control API. Used by the commands and by gateways for their
// peers. One connection is kept open between calls; calls at the same time, and event streams, have one each.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/control/address.hpp"
#include "gateway/control/api.hpp"
#include "gateway/control/byte_stream.hpp"

#include <functional>
#include <memory>
#include <string>

namespace diskferry::control {

/// Makes a connection to one gateway. Called once for each connection that is needed; cancelling ends it.
/// Errors: gone, not_found, permission, timed_out.
using Connector = std::function<Task<Result<std::unique_ptr<ByteStream>>>()>;

struct ClientOptions {
  Duration connect_time = std::chrono::seconds(10);  ///< name look-up, connection and TLS
  Duration request_time = std::chrono::seconds(60);  ///< from the first byte sent to the end of the answer
};

/// Errors of calls: what the gateway said, with its kind, message and remedy; else gone, timed_out, protocol,
/// permission (its certificate, or ours), cancelled. A call that ended with gone or timed_out may have been
/// done there.
/// Thread: any, many calls at once. Lifetime: `context` outlives it; it outlives its event sources.
class ControlClient final : public GatewayApi {
 public:
  /// Connects, and asks who is there, so that a wrong address shows here. Errors: also not_found with a
  /// remedy when no daemon runs.
  static Task<Result<std::unique_ptr<ControlClient>>> connect(DriverContext& context, GatewayAddress address,
                                                              ClientOptions options = {});
  /// Over a transport of the caller's. `name` is for messages.
  static Task<Result<std::unique_ptr<ControlClient>>> connect(DriverContext& context, std::string name,
                                                              Connector connector,
                                                              ClientOptions options = {});
  ~ControlClient() override;

  /// What it said when it was connected to.
  const GatewayInfo& greeting() const noexcept;
  /// Its clock minus ours in milliseconds, at most half the duration of the call off.
  std::int64_t clock_difference_ms() const noexcept;
  /// Whom its certificate names; empty where it showed none. The connection was only made because the
  /// certificate is good for the address's name, too.
  std::string certificate_name() const;
  /// The address, for messages.
  const std::string& name() const noexcept;

  Task<Result<GatewayInfo>> info() override;
  Task<Result<std::vector<ExportDescription>>> exports() override;
  Task<Result<ExportDescription>> add_export(ExportRequest request) override;
  Task<Result<void>> remove_export(std::string name) override;
  Task<Result<std::vector<JobDescription>>> jobs(JobFilter filter) override;
  Task<Result<JobDescription>> job(std::string id) override;
  Task<Result<JobDescription>> create_job(JobRequest request) override;
  Task<Result<std::string>> plan_job(JobRequest request) override;
  Task<Result<JobDescription>> act_on_job(std::string id, JobAction action) override;
  Task<Result<JobDescription>> set_job(std::string id, JobSettings settings) override;
  Task<Result<std::unique_ptr<EventSource>>> events(EventFilter filter) override;
  Task<Result<std::string>> peer(PeerCall call) override;
  Task<Result<std::string>> metrics() override;

  struct State;
  explicit ControlClient(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::control
