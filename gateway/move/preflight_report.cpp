// See the header. Findings are safe to show as they are.
#include "gateway/move/preflight_report.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

std::size_t count(const std::vector<Finding>& findings, Severity severity) {
  return static_cast<std::size_t>(std::ranges::count(findings, severity, &Finding::severity));
}

std::string heading(std::size_t number, Severity severity) {
  return fmt::format("{} {}{}:\n", number, to_string(severity), number == 1 ? "" : "s");
}

std::string line(const Finding& finding) {
  std::string text = fmt::format("  {}: {} ({})\n", finding.subject, finding.text, finding.code);
  if (!finding.remedy.empty()) text += fmt::format("      {}\n", finding.remedy);
  return text;
}

}  // namespace

std::string to_text(const std::vector<Finding>& findings) {
  if (findings.empty()) return "nothing speaks against the move\n";
  std::string text;
  for (const Severity severity : {Severity::blocker, Severity::warning, Severity::note}) {
    const std::size_t number = count(findings, severity);
    if (number == 0) continue;
    text += heading(number, severity);
    for (const Finding& each : findings)
      if (each.severity == severity) text += line(each);
  }
  return text;
}

json::value to_json(const std::vector<Finding>& findings) {
  json::array all;
  for (const Severity severity : {Severity::blocker, Severity::warning, Severity::note})
    for (const Finding& each : findings)
      if (each.severity == severity)
        all.push_back({{"severity", to_string(each.severity)},
                       {"code", each.code},
                       {"subject", each.subject},
                       {"text", each.text},
                       {"remedy", each.remedy}});
  return {{"blockers", count(findings, Severity::blocker)},
          {"warnings", count(findings, Severity::warning)},
          {"notes", count(findings, Severity::note)},
          {"findings", std::move(all)}};
}

std::string to_text(const Prediction& prediction) {
  std::string text;
  if (comes_to_an_end(prediction.convergence))
    text = fmt::format("predicted: {:.0f} s (disks {:.0f} s, memory {:.0f} s), a pause of about {:.0f} ms\n",
                       prediction.total_s(), prediction.disks_s, prediction.memory_s, prediction.pause_ms);
  else
    text = fmt::format("predicted: no end ({})\n", to_string(prediction.convergence));
  if (!prediction.why.empty()) text += fmt::format("  {}\n", prediction.why);
  if (prediction.rate_bytes_per_s != 0)
    text += fmt::format("  to send: {} of disks, {} of memory, at {}/s (the slowest part: {})\n",
                        format_bytes(prediction.disk_bytes), format_bytes(prediction.memory_bytes),
                        format_bytes(prediction.rate_bytes_per_s), prediction.slowest);
  return text;
}

json::value to_json(const Prediction& prediction) {
  return {{"converges", to_string(prediction.convergence)},
          {"why", prediction.why},
          {"seconds",
           {{"disks", prediction.disks_s}, {"memory", prediction.memory_s}, {"total", prediction.total_s()}}},
          {"pause-ms", prediction.pause_ms},
          {"disk-bytes", prediction.disk_bytes},
          {"memory-bytes", prediction.memory_bytes},
          {"rate", prediction.rate_bytes_per_s},
          {"slowest", prediction.slowest}};
}

Result<void> refuse_blockers(const std::vector<Finding>& findings) {
  const auto first = std::ranges::find(findings, Severity::blocker, &Finding::severity);
  if (first == findings.end()) return {};
  const std::size_t others = count(findings, Severity::blocker) - 1;
  std::string why = first->text;
  if (others > 0) why += fmt::format(" ({} more: see diskferry plan migrate)", others);
  return unexpected(
      fail(ErrorKind::unsupported, "migrate", first->subject).why(std::move(why)).remedy(first->remedy));
}

}  // namespace diskferry
