// The tables of rules in their order, and what rules share.
#include "gateway/move/preflight.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <algorithm>
#include <array>

namespace diskferry {

std::string_view to_string(Severity severity) noexcept {
  switch (severity) {
    case Severity::blocker:
      return "blocker";
    case Severity::warning:
      return "warning";
    case Severity::note:
      return "note";
  }
  return "note";
}

void Findings::add(Severity severity, std::string code, std::string subject, std::string text,
                   std::string remedy) {
  all_.push_back({.severity = severity,
                  .code = std::move(code),
                  .subject = printable(subject),
                  .text = printable(text),
                  .remedy = printable(remedy)});
}
void Findings::block(std::string code, std::string subject, std::string text, std::string remedy) {
  add(Severity::blocker, std::move(code), std::move(subject), std::move(text), std::move(remedy));
}
void Findings::warn(std::string code, std::string subject, std::string text, std::string remedy) {
  add(Severity::warning, std::move(code), std::move(subject), std::move(text), std::move(remedy));
}
void Findings::note(std::string code, std::string subject, std::string text) {
  add(Severity::note, std::move(code), std::move(subject), std::move(text), {});
}

std::vector<Finding> Findings::take() {
  std::vector<Finding> sorted;
  sorted.reserve(all_.size());
  for (const Severity severity : {Severity::blocker, Severity::warning, Severity::note})
    for (Finding& each : all_)
      if (each.severity == severity) sorted.push_back(std::move(each));
  return sorted;
}

std::vector<Finding> examine(const PreflightFacts& facts) {
  Findings found;
  const std::array tables{host_rules(),        machine_rules(), device_rules(), disk_rules(),
                          target_disk_rules(), option_rules(),  through_rules()};
  for (const auto& table : tables)
    for (const Rule rule : table) rule(facts, found);
  return found.take();
}

bool has_blocker(const std::vector<Finding>& findings) noexcept {
  return std::ranges::any_of(findings,
                             [](const Finding& each) { return each.severity == Severity::blocker; });
}

std::string name_there(const MoveRequest& request, const std::string& network) {
  const auto mapped = request.networks.find(network);
  return mapped == request.networks.end() ? network : mapped->second;
}

std::string format_there(const MoveDisk& disk) {
  if (!disk.format.empty()) return disk.format;
  const auto uri = ImageUri::parse(disk.uri);
  return uri && (uri->path().ends_with(".qcow2") || uri->path().ends_with(".qcow")) ? "qcow2" : "raw";
}

const std::string& machine_type_there(const PreflightFacts& facts) noexcept {
  return facts.request.machine_type.empty() ? facts.machine.machine : facts.request.machine_type;
}

const std::string& machine_name_there(const PreflightFacts& facts) noexcept {
  return facts.request.new_name.empty() ? facts.machine.name : facts.request.new_name;
}

bool is_comparable(const std::string& identity, const std::string& uri) {
  if (identity.empty()) return false;
  const auto parsed = ImageUri::parse(uri);
  if (!parsed) return false;
  if (parsed->is_file()) return true;
  const std::string& host = parsed->host();
  return !parsed->is_on_this_host() && host != "localhost" && host != "::1" && !host.starts_with("127.");
}

bool is_proof(const std::string& identity) noexcept {
  return !identity.empty() && !identity.starts_with("file|0|");
}

std::string first_label(const std::string& name) {
  return name.substr(0, name.find('.'));
}

bool has_medium(const VmDisk& disk) noexcept {
  return !disk.source_type.empty() || !disk.source.empty();
}

bool copies_disks(const PreflightFacts& facts) noexcept {
  return !facts.request.disks.empty() && !facts.goes_through;
}

bool contains(const std::vector<std::string>& names, const std::string& name) noexcept {
  return std::ranges::find(names, name) != names.end();
}

std::string remedy_of(const Error& error, std::string fallback) {
  return error.remedy().empty() ? fallback : error.remedy();
}

}  // namespace diskferry
