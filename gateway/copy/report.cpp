// See report.hpp.
#include "gateway/copy/report.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace diskferry {
namespace json = boost::json;
namespace {

json::value optional_bytes(const std::optional<std::uint64_t>& bytes) {
  return bytes ? json::value(*bytes) : json::value(nullptr);
}
std::string allocated(const std::optional<std::uint64_t>& bytes) {
  return bytes ? format_bytes(*bytes) : std::string("not known");
}
std::string rate(std::uint64_t bytes, double seconds) {
  if (seconds <= 0) return {};
  return fmt::format(", {}/s",
                     format_bytes(static_cast<std::uint64_t>(static_cast<double>(bytes) / seconds)));
}
std::string_view verdict(const CopyReport& report) {
  if (report.failure) return report.failure->kind == ErrorKind::mismatch ? "different" : "not finished";
  if (!report.is_good()) return "source changed";
  if (report.verify == VerifyLevel::sample) return "samples equal";
  return report.verify == VerifyLevel::none ? "ends only" : "equal";
}

std::string_view state_of(const CopyReport& report) {
  if (!report.failure) return report.is_good() ? "complete" : "source changed";
  if (report.failure->kind == ErrorKind::cancelled) return "cancelled";
  return report.failure->has_begun ? "failed" : "refused";
}
json::value to_json(const std::optional<CopyFailure>& failure) {
  if (!failure) return nullptr;
  return {{"kind", to_string(failure->kind)},
          {"message", failure->message},
          {"kept", failure->kept_bytes},
          {"can-resume", failure->can_resume}};
}

}  // namespace

std::string_view to_string(VerifyLevel level) noexcept {
  switch (level) {
    case VerifyLevel::none:
      return "none";
    case VerifyLevel::sample:
      return "sample";
    case VerifyLevel::cache:
      return "cache";
    case VerifyLevel::storage:
      return "storage";
  }
  return "?";
}

std::string to_text(const CopyReport& report) {
  std::string text =
      fmt::format("{} -> {} ({} to {}, {})\n", printable(report.source), printable(report.target),
                  report.source_format, report.target_format, format_bytes(report.size_bytes));
  if (report.target_size_bytes > report.size_bytes)
    text += fmt::format("  the target is larger: its first {} bytes are the disk, the rest reads as zeros\n",
                        report.size_bytes);
  text += fmt::format("  read {}, written {}, zeroed {}, skipped {}", format_bytes(report.read_bytes),
                      format_bytes(report.written_bytes), format_bytes(report.zeroed_bytes),
                      format_bytes(report.skipped_bytes));
  if (report.finds_holes_by_reading) text += " (holes were found by reading)";
  if (report.resumed_bytes > 0) text += fmt::format(", done before {}", format_bytes(report.resumed_bytes));
  text += fmt::format("\n  allocated: source {}, target {}\n", allocated(report.source_allocated_bytes),
                      allocated(report.target_allocated_bytes));
  text += fmt::format("  {:.2f} s{}: plan {:.2f}, copy {:.2f}, flush {:.2f}, verify {:.2f}\n", report.total_s,
                      rate(report.size_bytes - report.resumed_bytes, report.total_s), report.plan_s,
                      report.copy_s, report.flush_s, report.verify_s);
  text += fmt::format("  verification ({}): {}, {}\n", to_string(report.verify), verdict(report),
                      format_bytes(report.verified_bytes));
  if (report.retries > 0) text += fmt::format("  requests sent again: {}\n", report.retries);
  for (const std::string& warning : report.warnings) text += fmt::format("  warning: {}\n", warning);
  return text;
}

json::value to_json(const CopyReport& report) {
  json::array warnings;
  for (const std::string& warning : report.warnings) warnings.emplace_back(warning);
  json::value seconds{{"plan", report.plan_s},
                      {"copy", report.copy_s},
                      {"flush", report.flush_s},
                      {"verify", report.verify_s},
                      {"total", report.total_s},
                      {"background-flush", report.background_flush_s},
                      {"background-verify", report.background_verify_s}};
  json::value verification{
      {"level", to_string(report.verify)}, {"result", verdict(report)}, {"compared", report.verified_bytes}};
  return {{"state", state_of(report)},
          {"error", to_json(report.failure)},
          {"source", report.source},
          {"target", report.target},
          {"source-format", report.source_format},
          {"target-format", report.target_format},
          {"virtual-size", report.size_bytes},
          {"target-virtual-size", report.target_size_bytes},
          {"read", report.read_bytes},
          {"written", report.written_bytes},
          {"zeroed", report.zeroed_bytes},
          {"skipped", report.skipped_bytes},
          {"resumed", report.resumed_bytes},
          {"holes-found-by-reading", report.finds_holes_by_reading},
          {"source-actual-size", optional_bytes(report.source_allocated_bytes)},
          {"target-actual-size", optional_bytes(report.target_allocated_bytes)},
          {"seconds", std::move(seconds)},
          {"verification", std::move(verification)},
          {"checkpoints", report.checkpoints},
          {"request-size", report.request_bytes},
          {"requests", report.requests},
          {"retries", report.retries},
          {"changed-layers", report.changed_layers},
          {"warnings", std::move(warnings)}};
}

}  // namespace diskferry
