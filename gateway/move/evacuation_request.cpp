// Requests in and out of JSON, and what can be wrong with one before anybody is asked.
#include "gateway/move/evacuation_request.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/machine_fit.hpp"
#include "gateway/move/request_fields.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry {
namespace {

constexpr std::size_t disks_max = 256;
constexpr std::size_t hosts_max = 64;

Error wrong(std::string why, std::string remedy = {}) {
  Error error = fail(ErrorKind::invalid_argument, "evacuate").why(std::move(why));
  return remedy.empty() ? error : std::move(error).remedy(std::move(remedy));
}

Result<void> check_disks(const std::vector<MoveDisk>& disks) {
  if (disks.size() > disks_max) return unexpected(wrong("there are more than 256 disks"));
  for (const MoveDisk& disk : disks) {
    if (disk.target.empty() || disk.uri.empty())
      return unexpected(wrong("a disk needs the machine's name for it and where it is now",
                              "say --disk vda=/replica/vm.qcow2"));
    DISKFERRY_CHECK(ImageUri::parse(disk.uri));
    if (!disk.format.empty() && disk.format != "raw" && disk.format != "qcow2")
      return unexpected(wrong(
          fmt::format("{}: a disk is raw or qcow2, not {}", printable(disk.target), printable(disk.format))));
    if (std::ranges::count(disks, disk.target, &MoveDisk::target) > 1)
      return unexpected(wrong(fmt::format("the disk {} is named twice", printable(disk.target))));
  }
  return {};
}

}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<EvacuationRequest> auto& request) {
  fields.take("machine", request.machine);
  fields.take("definition", request.definition);
  fields.take("old-host", request.old_host);
  fields.take("old-address", request.old_address);
  fields.take("old-libvirt", request.old_libvirt);
  fields.take("destination", request.destination);
  fields.take("ask", request.ask);
  fields.take_list("disks", request.disks);
  fields.take("networks", request.networks);
  fields.take("machine-type", request.machine_type);
  fields.take("cpu", request.cpu);
  fields.take("i-have-fenced", request.i_have_fenced);
  fields.take("start", request.start);
}

Result<EvacuationRequest> parse_evacuation_request(std::string_view text) {
  DISKFERRY_TRY(EvacuationRequest request, read_json<EvacuationRequest>(text, "the request"));
  DISKFERRY_CHECK(check(request));
  return request;
}

std::string to_json(const EvacuationRequest& request) {
  return write_json(request);
}

Result<void> check(const EvacuationRequest& request) {
  if (request.machine.empty()) return unexpected(wrong("the machine is not named"));
  if (request.definition.size() > definition_bytes_max)
    return unexpected(fail(ErrorKind::too_large, "evacuate").why("the definition is longer than 512 KiB"));
  if (!request.definition.empty() && request.old_host.empty())
    return unexpected(wrong("the host that is gone is not named", "say --old-host HOST"));
  if (request.ask.size() > hosts_max) return unexpected(wrong("there are more than 64 hosts to ask"));
  DISKFERRY_CHECK(check_disks(request.disks));
  DISKFERRY_CHECK(cpu_xml_of(request.cpu));
  return {};
}

}  // namespace diskferry
