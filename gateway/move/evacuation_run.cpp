// The steps of an evacuation, each written down before the next one. Nothing is undone: a machine that is
// defined here and does not run harms nobody, and the same command again goes on.
#include "gateway/move/evacuation_run.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/copy/target.hpp"
#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/move/machine_fit.hpp"
#include "gateway/move/preflight_report.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace json = boost::json;
namespace {

constexpr Duration lease = std::chrono::hours(1);  // longer than all steps with their bounds

Result<DomainRewrite> changes_for(const EvacuationFacts& facts, const VmDescription& as_defined) {
  DomainRewrite changes{.networks = facts.request.networks, .is_persistent_form = true};
  for (const VmDisk& disk : as_defined.disks) {
    const auto named = std::ranges::find(facts.request.disks, disk.target, &MoveDisk::target);
    if (named == facts.request.disks.end()) {
      changes.keep_disks.push_back(disk.target);
      continue;
    }
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(named->uri));
    DISKFERRY_TRY(DiskSource source, disk_source(uri, format_of(*named, disk), is_block_device(uri)));
    changes.disks.push_back({.target = disk.target, .source = std::move(source)});
  }
  DISKFERRY_CHECK(fit_to_host(as_defined, *facts.host.target,
                              {.machine_type = facts.request.machine_type,
                               .cpu = facts.request.cpu,
                               .keeps_emulator = facts.host.has_emulator_there},
                              changes));
  return changes;
}

}  // namespace

std::string to_json(const EvacuationPlan& plan) {
  return json::serialize(json::object{{"preflight", to_json(plan.findings)},
                                      {"text", to_text(plan.findings)},
                                      {"definition-diff", plan.definition_diff},
                                      {"runs-here", plan.runs_here}});
}

Task<Result<EvacuationPlan>> Evacuation::plan_connected() {
  DISKFERRY_CO_TRY(const EvacuationFacts facts, co_await collect());
  EvacuationPlan plan{.findings = examine(facts), .runs_here = runs_here(facts), .place = here_->uri()};
  if (plan.runs_here) co_return plan;
  DISKFERRY_CO_TRY(const VmDescription as_defined, read_domain(request_.definition));
  // A disk that the machine does not have is a finding; there is no definition to show then.
  auto changes = changes_for(facts, as_defined);
  if (!changes && !has_blocker(plan.findings)) co_return unexpected(std::move(changes).error());
  if (!changes) co_return plan;
  auto rewritten = rewrite_domain(request_.definition, *changes);
  if (!rewritten && !has_blocker(plan.findings)) co_return unexpected(std::move(rewritten).error());
  if (!rewritten) co_return plan;
  plan.definition_diff = xml_diff(request_.definition, rewritten->xml);
  plan.definition = std::move(rewritten->xml);
  for (std::string& warning : rewritten->warnings)
    plan.findings.push_back({.severity = Severity::warning,
                             .code = "definition",
                             .subject = "definition",
                             .text = std::move(warning),
                             .remedy = "see --dry-run for the whole difference"});
  co_return plan;
}

Task<Result<EvacuationPlan>> Evacuation::plan() {
  const std::string uri = request_.destination.empty() ? environment_.libvirt_uri : request_.destination;
  auto here = co_await Libvirt::connect(environment_.drivers, uri);
  if (!here) co_return unexpected(std::move(here).error().in("reach the hypervisor of this host"));
  here_ = *std::move(here);
  auto plan = co_await plan_connected();
  if (job_.id.empty()) {
    co_await here_->close();
    here_.reset();
  }
  co_return plan;
}

Task<Result<void>> Evacuation::enter(std::string phase) {
  const std::string text = fmt::format(R"({{"phase":"{}","word":"{}"}})", phase, phase);
  auto saved = co_await environment_.jobs.update(
      job_.id, job_.generation,
      {.status = JobStatus::running,
       .phase = phase,
       .event = NewJobEvent{.kind = std::string(phase_event), .text = text}});
  if (!saved) co_return unexpected(std::move(saved).error().in("write the job down"));
  job_.phase = phase;
  spdlog::info("evacuation {} of {}: {}", job_.id, printable(job_.subject), phase);
  co_return Result<void>{};
}

Task<Result<void>> Evacuation::define_and_start(EvacuationPlan plan) {
  // From here on it is followed through: what libvirt was asked for must be known.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  DISKFERRY_CO_CHECK(co_await here_->define(std::move(plan.definition)));
  DISKFERRY_CO_CHECK(co_await enter("defined"));
  leftovers_.push_back(
      fmt::format("the definition of {} on {}: undefine it there before anybody starts it, "
                  "when that host is back",
                  printable(request_.machine), printable(request_.old_host)));
  if (!request_.start) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await here_->start(job_.subject));
  co_return co_await enter("started");
}

Task<Result<void>> Evacuation::act() {
  DISKFERRY_CO_TRY(EvacuationPlan first, co_await plan());
  for (const Finding& finding : first.findings)
    if (finding.severity == Severity::warning) warnings_.push_back(finding.text);
  DISKFERRY_CO_CHECK(refuse_blockers(first.findings));
  if (first.runs_here) {
    fenced_by_ = "nobody: it runs here already";
    co_return co_await enter("started");
  }
  DISKFERRY_CO_CHECK(co_await enter("checked"));
  if (!request_.i_have_fenced.empty()) {
    fenced_by_ = "operator: " + printable(request_.i_have_fenced);
  } else {
    DISKFERRY_CO_TRY(fenced_by_,
                     co_await fence_host(environment_.drivers, environment_.fence, request_.old_host));
  }
  DISKFERRY_CO_CHECK(co_await enter("fenced"));
  // Fencing takes time, and while it did somebody else may have had the same idea.
  DISKFERRY_CO_TRY(EvacuationPlan again, co_await plan_connected());
  DISKFERRY_CO_CHECK(refuse_blockers(again.findings));
  if (again.runs_here) co_return co_await enter("started");
  if (co_await is_cancelled()) co_return unexpected(cancelled_error("evacuate", job_.subject));
  co_return co_await define_and_start(std::move(again));
}

Task<Result<void>> Evacuation::run(JobRecord job) {
  DISKFERRY_CO_TRY(job_, co_await environment_.jobs.take_lease(job.id, environment_.controller, lease));
  auto result = co_await act();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  if (here_) co_await here_->close();
  here_.reset();
  JobChanges end;
  const bool was_cancelled = !result && result.error().kind() == ErrorKind::cancelled;
  end.status = result ? JobStatus::done : was_cancelled ? JobStatus::cancelled : JobStatus::failed;
  if (!result) end.error = result.error().message();
  json::object report{{"subject", job_.subject},
                      {"phase", job_.phase},
                      {"old-host", request_.old_host},
                      {"host", environment_.host_name},
                      {"fenced-by", fenced_by_}};
  report["warnings"] = json::array(warnings_.begin(), warnings_.end());
  report["leftovers"] = json::array(leftovers_.begin(), leftovers_.end());
  end.report = json::serialize(report);
  end.event = NewJobEvent{.kind = std::string(end_event), .text = *end.report};
  auto saved = co_await environment_.jobs.update(job_.id, job_.generation, std::move(end));
  if (!result) co_return result;
  if (!saved) co_return unexpected(std::move(saved).error());
  co_return Result<void>{};
}

}  // namespace diskferry
