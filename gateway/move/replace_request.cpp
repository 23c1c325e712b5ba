#include "gateway/move/replace_request.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/state_fields.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace diskferry {
namespace {

constexpr std::uint64_t pause_ms_max = 60'000;
constexpr std::uint64_t long_s_max = 366ull * 24 * 3600;

Error wrong(std::string why) {
  return fail(ErrorKind::invalid_argument, "read the request").why(std::move(why));
}

}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceDisk> auto& disk) {
  fields.take("export", disk.name);
  fields.take("uri", disk.uri);
  fields.take_unless_empty("format", disk.format);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceRequest> auto& request) {
  fields.take_list("disks", request.disks);
  fields.take("overwrite", request.overwrite);
  fields.take("bytes-per-second", request.bytes_per_s);
  fields.take("max-pause-ms", request.max_pause_ms);
  fields.take("max-write-latency-ms", request.max_write_latency_ms);
  fields.take("deadline-s", request.deadline_s);
  fields.take("commit-by-hand", request.commit_by_hand);
  fields.take("commit-at-ms", request.commit_at_ms);
  fields.take("retain-s", request.retain_s);
  fields.take("remove-source", request.remove_source);
  fields.take("connections", request.connections);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceState> auto& state) {
  fields.take("phase", state.phase, phase_words);
  fields.take_list("disks", state.disks);
  fields.take_list("timeline", state.timeline);
  fields.take_optional("hold", state.hold);
  fields.take("switchovers", state.switchovers);
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
}

Result<void> check(const ReplaceRequest& request) {
  if (request.disks.empty()) return unexpected(wrong("it names no export"));
  if (request.disks.size() > replace_disks_max)
    return unexpected(wrong(fmt::format("more than {} exports at once", replace_disks_max)));
  std::set<std::string> names;
  std::set<std::string> uris;
  for (const ReplaceDisk& disk : request.disks) {
    if (disk.name.empty()) return unexpected(wrong("an export has no name"));
    if (!names.insert(disk.name).second)
      return unexpected(wrong(fmt::format("the export {} is named twice", printable(disk.name))));
    if (!uris.insert(disk.uri).second)
      return unexpected(wrong(fmt::format("two exports cannot both go to {}", printable(disk.uri))));
    if (!disk.format.empty() && disk.format != "raw" && disk.format != "qcow2")
      return unexpected(wrong("a target's format is raw or qcow2"));
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(disk.uri));
    if (uri.is_file() && !uri.path().starts_with('/'))
      return unexpected(wrong(fmt::format("{} is no absolute path and no URI", printable(disk.uri))));
  }
  if (request.max_pause_ms == 0 || request.max_pause_ms > pause_ms_max)
    return unexpected(wrong(fmt::format("max-pause-ms is between 1 and {}", pause_ms_max)));
  if (request.max_write_latency_ms == 0 || request.max_write_latency_ms > pause_ms_max)
    return unexpected(wrong(fmt::format("max-write-latency-ms is between 1 and {}", pause_ms_max)));
  if (request.deadline_s > long_s_max || request.retain_s > long_s_max)
    return unexpected(wrong("deadline-s and retain-s are of a year at most"));
  return {};
}

Result<ReplaceRequest> parse_replace_request(std::string_view json) {
  DISKFERRY_TRY(ReplaceRequest request, read_json<ReplaceRequest>(json, "the request"));
  DISKFERRY_CHECK(check(request));
  return request;
}
std::string to_json(const ReplaceRequest& request) {
  return write_json(request);
}
std::string subject_of(const ReplaceRequest& request) {
  std::string subject;
  for (const ReplaceDisk& disk : request.disks) subject += (subject.empty() ? "" : ",") + disk.name;
  return subject;
}

std::string to_json(const ReplaceState& state) {
  return write_json(state);
}
Result<ReplaceState> parse_replace_state(std::string_view json) {
  return read_json<ReplaceState>(json, "the job's state");
}

}  // namespace diskferry
