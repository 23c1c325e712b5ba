// This gateway as its API: what the control server serves. Holds nothing; the rooms behind it do the work.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/daemon/exports.hpp"
#include "gateway/daemon/local_jobs.hpp"

#include <chrono>
#include <functional>
#include <string>

namespace diskferry::daemon {

/// What the calls are made of. Lifetime: all outlive the gateway.
struct GatewayParts {
  std::string name{};  ///< of the host
  std::string id{};
  Exports& exports;
  nbd_server::Server& nbd;
  LocalJobs* jobs = nullptr;          ///< nullptr: no jobs here
  control::PeerApi* peers = nullptr;  ///< nullptr: nothing is done for other gateways
  /// A machine's disk that is removed is not there again after a restart.
  std::function<Task<Result<void>>(std::string)> forget_disk{};
};

class LocalGateway final : public control::GatewayApi {
 public:
  explicit LocalGateway(GatewayParts parts);

  Task<Result<control::GatewayInfo>> info() override;
  Task<Result<std::vector<control::ExportDescription>>> exports() override;
  Task<Result<control::ExportDescription>> add_export(control::ExportRequest request) override;
  Task<Result<void>> remove_export(std::string name) override;
  Task<Result<std::vector<control::JobDescription>>> jobs(control::JobFilter filter) override;
  Task<Result<control::JobDescription>> job(std::string id) override;
  Task<Result<control::JobDescription>> create_job(control::JobRequest request) override;
  Task<Result<std::string>> plan_job(control::JobRequest request) override;
  Task<Result<control::JobDescription>> act_on_job(std::string id, control::JobAction action) override;
  Task<Result<control::JobDescription>> set_job(std::string id, control::JobSettings settings) override;
  Task<Result<std::unique_ptr<control::EventSource>>> events(control::EventFilter filter) override;
  Task<Result<std::string>> peer(control::PeerCall call) override;
  Task<Result<std::string>> metrics() override;

 private:
  const GatewayParts parts_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace diskferry::daemon
