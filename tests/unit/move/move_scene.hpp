// A move with nobody at its ends: a job store, a gateway over there that only counts, and what they were
// asked for, in order.
#pragma once

#include "gateway/move/move_context.hpp"
#include "tests/unit/jobs/store_fixture.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace diskferry::test {

using Calls = std::vector<std::string>;

class FakeTargetGateway final : public TargetGateway {
 public:
  explicit FakeTargetGateway(Calls& calls) : calls_(calls) {}
  Task<Result<GatewayFacts>> facts() override { co_return GatewayFacts{}; }
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest) override { co_return TargetDiskFacts{}; }
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest) override { co_return PreparedDisk{}; }
  Task<Result<void>> finish(std::string, TargetEnd end) override {
    calls_.push_back("finish " + std::string(to_string(end)));
    co_return Result<void>{};
  }
  Task<Result<TargetMachineAnswer>> machine(TargetMachineCall) override { co_return TargetMachineAnswer{}; }
  Result<std::string> export_uri(const PreparedDisk&, unsigned) const override { return "null:"; }
  Task<void> close() override { co_return; }

 private:
  Calls& calls_;
};

class MoveScene : public StoreFixture {
 protected:
  MoveScene() { open(); }

  MoveEnvironment& environment() {
    if (!environment_)
      environment_.emplace(
          MoveEnvironment{.drivers = drivers(),
                          .jobs = *store,
                          .bus = bus,
                          .controller = "this process",
                          .run_folder = folder / "run",
                          .state_folder = folder / "state",
                          .here = {.name = "host-a"},
                          .connect_gateway = [this](std::string) { return connect_gateway(); }});
    return *environment_;
  }
  virtual DriverContext& drivers() { return runtime().context(); }

  /// A job whose record says that the move stands at `phase`.
  JobRecord job_at(Phase phase, const MoveRequest& request) {
    JobRecord job = create({.kind = "migrate", .subject = request.domain, .request = to_json(request)});
    if (phase == Phase::planned) return job;
    MoveState state{.phase = phase, .machine = "uuid"};
    if (phase != Phase::prepared) state.timeline.push_back({.phase = Phase::bulk, .at_ms = 1});
    must(run(store->update(
        job.id, job.generation,
        {.status = JobStatus::running, .phase = std::string(to_string(phase)), .state = to_json(state)})));
    return load(job);
  }
  static MoveRequest request() {
    return {.domain = "vm1", .destination = "qemu+tcp://host-b/system", .gateway = "https://host-b"};
  }

  Calls calls;

 private:
  Task<Result<std::unique_ptr<TargetGateway>>> connect_gateway() {
    co_return std::make_unique<FakeTargetGateway>(calls);
  }
  std::optional<MoveEnvironment> environment_;
};

}  // namespace diskferry::test
