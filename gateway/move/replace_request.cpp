#include "gateway/move/replace_request.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/state_fields.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace diskferry {
namespace {

constexpr std::uint64_t pause_ms_max = 60'000;  // and of a write's wait
constexpr std::uint64_t long_s_max = 366ull * 24 * 3600;

Error wrong(std::string why) {
  return fail(ErrorKind::invalid_argument, "read the request").why(std::move(why));
}
Result<void> check_milliseconds(std::string_view name, std::uint64_t ms) {
  if (ms != 0 && ms <= pause_ms_max) return {};
  return unexpected(wrong(fmt::format("{} is between 1 and {}", name, pause_ms_max)));
}
Result<void> check_seconds(std::string_view name, std::uint64_t seconds) {
  if (seconds <= long_s_max) return {};
  return unexpected(wrong(fmt::format("{} is a year at most", name)));
}
std::int64_t deadline_at(std::uint64_t seconds, std::int64_t since_ms) {
  return seconds == 0 ? 0 : since_ms + static_cast<std::int64_t>(seconds) * 1000;
}
constexpr Words<OnReadError> on_read_error_words{all_on_read_error, to_string};

}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceDisk> auto& disk) {
  fields.take("export", disk.name);
  fields.take("uri", disk.uri);
  fields.take_unless_empty("format", disk.format);
  fields.take_unless_empty("domain", disk.domain);
  fields.take_unless_empty("disk", disk.disk);
  fields.take_unless_empty("secret-uuid", disk.secret);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceRequest> auto& request) {
  fields.take_list("disks", request.disks);
  fields.take("overwrite", request.overwrite);
  fields.take("bytes-per-second", request.bytes_per_s);
  fields.take("max-pause-ms", request.max_pause_ms);
  fields.take("max-write-latency-ms", request.max_write_latency_ms);
  fields.take("deadline-s", request.deadline_s);
  fields.take("on-read-error", request.on_read_error, on_read_error_words);
  fields.take("commit-by-hand", request.commit_by_hand);
  fields.take("commit-at-ms", request.commit_at_ms);
  fields.take("retain-s", request.retain_s);
  fields.take("remove-source", request.remove_source);
  fields.take("connections", request.connections);
  fields.take("rehome", request.rehome);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceLimits> auto& limits) {
  fields.take("bytes-per-second", limits.bytes_per_s);
  fields.take("max-pause-ms", limits.max_pause_ms);
  fields.take("max-write-latency-ms", limits.max_write_latency_ms);
  fields.take("deadline-at-ms", limits.deadline_at_ms);
  fields.take("on-read-error", limits.on_read_error, on_read_error_words);
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReplaceState> auto& state) {
  fields.take("phase", state.phase, phase_words);
  fields.take_list("disks", state.disks);
  fields.take_list("timeline", state.timeline);
  fields.take_optional("limits", state.limits);
  fields.take_optional("hold", state.hold);
  fields.take("switchovers", state.switchovers);
  fields.take("warnings", state.warnings);
  fields.take("leftovers", state.leftovers);
}

Result<void> check(const ReplaceRequest& request) {
  if (request.disks.empty()) return unexpected(wrong("it names no export"));
  if (request.disks.size() > replace_disks_max)
    return unexpected(wrong(fmt::format("more than {} exports at once", replace_disks_max)));
  if ((request.rehome || is_adoption(request)) && request.disks.size() != 1)
    return unexpected(
        wrong("the hypervisor moves a machine's disks one by one, so that they cannot go all or "
              "none: each is a job of its own")
            .remedy("say diskferry replace for each of them; with --detach they go at once"));
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
    if (!disk.secret.empty() && !request.rehome)
      return unexpected(wrong("a secret of libvirt's is for a target that QEMU opens itself")
                            .remedy("leave out --secret, or add --rehome"));
    DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(disk.uri));
    if (uri.is_file() && !uri.path().starts_with('/'))
      return unexpected(wrong(fmt::format("{} is no absolute path and no URI", printable(disk.uri))));
  }
  DISKFERRY_CHECK(check_milliseconds("max-pause-ms", request.max_pause_ms));
  DISKFERRY_CHECK(check_milliseconds("max-write-latency-ms", request.max_write_latency_ms));
  DISKFERRY_CHECK(check_seconds("deadline-s", request.deadline_s));
  DISKFERRY_CHECK(check_seconds("retain-s", request.retain_s));
  if (request.commit_at_ms < 0) return unexpected(wrong("commit-at-ms is before 1970"));
  if (request.commit_by_hand && request.commit_at_ms != 0)
    return unexpected(wrong("they change places either by hand or at a time"));
  return {};
}

Result<void> check_time(const ReplaceRequest& request, std::int64_t now_ms) {
  if (request.commit_at_ms == 0 || request.commit_at_ms >= now_ms) return {};
  return unexpected(wrong("the time to change places is in the past")
                        .remedy("name a later one, or none; the gateway's clock counts"));
}

ReplaceLimits limits_of(const ReplaceRequest& request, std::int64_t begun_ms) {
  return {.bytes_per_s = request.bytes_per_s,
          .max_pause_ms = request.max_pause_ms,
          .max_write_latency_ms = request.max_write_latency_ms,
          .deadline_at_ms = deadline_at(request.deadline_s, begun_ms),
          .on_read_error = request.on_read_error};
}

Result<ReplaceLimits> with_settings(ReplaceLimits limits, const ReplaceSettings& settings,
                                    std::int64_t now_ms) {
  if (settings.bytes_per_s) limits.bytes_per_s = *settings.bytes_per_s;
  if (settings.max_pause_ms) limits.max_pause_ms = *settings.max_pause_ms;
  if (settings.max_write_latency_ms) limits.max_write_latency_ms = *settings.max_write_latency_ms;
  DISKFERRY_CHECK(check_milliseconds("max-pause-ms", limits.max_pause_ms));
  DISKFERRY_CHECK(check_milliseconds("max-write-latency-ms", limits.max_write_latency_ms));
  if (settings.deadline_s) {
    DISKFERRY_CHECK(check_seconds("deadline-s", *settings.deadline_s));
    limits.deadline_at_ms = deadline_at(*settings.deadline_s, now_ms);
  }
  if (settings.on_read_error) {
    DISKFERRY_TRY(limits.on_read_error, on_read_error_named(*settings.on_read_error));
  }
  return limits;
}

std::string_view to_string(OnReadError what) noexcept {
  switch (what) {
    case OnReadError::stop:
      return "stop";
    case OnReadError::skip:
      return "skip";
    case OnReadError::abort:
      return "abort";
  }
  return "unknown";
}

Result<OnReadError> on_read_error_named(std::string_view name) {
  for (const OnReadError each : all_on_read_error)
    if (to_string(each) == name) return each;
  return unexpected(wrong("on-read-error is stop, skip or abort"));
}

Result<ReplaceRequest> parse_replace_request(std::string_view json) {
  DISKFERRY_TRY(ReplaceRequest request, read_json<ReplaceRequest>(json, "the request"));
  DISKFERRY_CHECK(check(request));
  return request;
}
std::string to_json(const ReplaceRequest& request) {
  return write_json(request);
}
bool is_adoption(const ReplaceRequest& request) noexcept {
  return std::ranges::any_of(request.disks, [](const ReplaceDisk& each) { return !each.domain.empty(); });
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
