// Requests in and out of JSON, and what can be wrong with one before anybody is asked.
#include "gateway/move/request.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/machine_fit.hpp"
#include "gateway/move/qmp_request.hpp"
#include "gateway/move/request_fields.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

constexpr std::size_t disks_max = 256;
std::string_view word_of(TimeoutAction action) noexcept {
  switch (action) {
    case TimeoutAction::abort:
      return "abort";
    case TimeoutAction::suspend:
      return "suspend";
    case TimeoutAction::post_copy:
      return "post-copy";
  }
  return {};
}
constexpr std::array timeout_actions{TimeoutAction::abort, TimeoutAction::suspend, TimeoutAction::post_copy};

Error wrong(std::string why, std::string remedy = {}) {
  Error error = fail(ErrorKind::invalid_argument, "migrate").why(std::move(why));
  return remedy.empty() ? error : std::move(error).remedy(std::move(remedy));
}

}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<MoveRequest> auto& request) {
  fields.take("domain", request.domain);
  fields.take("source", request.source);
  fields.take("destination", request.destination);
  fields.take("gateway", request.gateway);
  fields.take_list("disks", request.disks);
  fields.take("cold", request.cold);
  fields.take("overwrite", request.overwrite);
  fields.take("networks", request.networks);
  fields.take("new-name", request.new_name);
  fields.take("machine-type", request.machine_type);
  fields.take("cpu", request.cpu);
  fields.take("bytes-per-second", request.bytes_per_s);
  fields.take("max-pause-ms", request.max_pause_ms);
  fields.take("timeout-s", request.timeout_s);
  fields.take("timeout-action", request.timeout_action, Words<TimeoutAction>{timeout_actions, word_of});
  fields.take("auto-converge", request.auto_converge);
  fields.take("post-copy", request.post_copy);
  fields.take("parallel", request.parallel);
  fields.take("compression", request.compression);
  fields.take("memory-tls", request.memory_tls);
  fields.take("memory-uri", request.memory_uri);
  fields.take("connections", request.connections);
  fields.take("keep-partial", request.keep_partial);
  fields.take("keep-source", request.keep_source);
  fields.take("verify", request.verify);
  fields.take("verify-running", request.verify_running);
}

Result<MoveRequest> parse_move_request(std::string_view text) {
  DISKFERRY_TRY(MoveRequest request, read_json<MoveRequest>(text, "the request"));
  DISKFERRY_CHECK(check(request));
  return request;
}

std::string to_json(const MoveRequest& request) {
  return write_json(request);
}

Result<void> check(const MoveRequest& request) {
  if (request.domain.empty()) return unexpected(wrong("the machine is not named"));
  if (request.destination.empty())
    return unexpected(wrong("the other host is not named", "say --to qemu+ssh://HOST/system"));
  if (request.disks.size() > disks_max) return unexpected(wrong("there are more than 256 disks"));
  for (const MoveDisk& disk : request.disks) {
    if (disk.target.empty() || disk.uri.empty())
      return unexpected(wrong("a disk needs the machine's name for it and where it goes",
                              "say --disk vda=/images/vm.qcow2"));
    DISKFERRY_CHECK(ImageUri::parse(disk.uri));
    if (!disk.format.empty() && disk.format != "raw" && disk.format != "qcow2")
      return unexpected(wrong(fmt::format("{}: disks are written as raw or qcow2, not {}",
                                          printable(disk.target), printable(disk.format))));
    const auto same = [&](const MoveDisk& other) { return &other != &disk && other.target == disk.target; };
    if (std::ranges::any_of(request.disks, same))
      return unexpected(wrong(fmt::format("the disk {} is named twice", printable(disk.target))));
  }
  if (!request.cold && !(request.machine_type.empty() && request.cpu.empty()))
    return unexpected(wrong("a machine that runs keeps its machine type and its CPU",
                            "shut it down and say --cold, or leave --machine and --cpu out"));
  DISKFERRY_CHECK(cpu_xml_of(request.cpu));
  if (request.timeout_action == TimeoutAction::post_copy && !request.post_copy)
    return unexpected(wrong("post-copy at the timeout needs post-copy allowed", "say --post-copy"));
  if (is_by_qmp(request)) return check_by_qmp(request);
  return {};
}

}  // namespace diskferry
