// The values in and out of JSON.
#include "gateway/move/target_gateway.hpp"

#include "gateway/move/json_fields.hpp"

#include <array>

namespace diskferry {
namespace {
constexpr std::array<std::string_view, 3> end_names{"keep", "leave", "remove"};
constexpr std::array ends{TargetEnd::keep, TargetEnd::leave, TargetEnd::remove};
}  // namespace

template <class Fields>
static void list_fields(Fields& fields, ValueOf<TargetDiskRequest> auto& request) {
  fields.take("move", request.move);
  fields.take("machine", request.machine);
  fields.take("disk", request.disk);
  fields.take("uri", request.uri);
  fields.take("format", request.format);
  fields.take("size-bytes", request.size_bytes);
  fields.take("overwrite", request.overwrite);
  fields.take("through-hypervisor", request.through_hypervisor);
  fields.take("hypervisor-export", request.hypervisor_export);
  // Older gateways know no such field, and need none for the other ways.
  fields.take_unless_empty("monitor", request.monitor);
}

std::string to_json(const TargetDiskRequest& request) {
  return write_json(request);
}

Result<TargetDiskRequest> parse_target_disk_request(std::string_view text) {
  return read_json<TargetDiskRequest>(text, "the request");
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<TargetDiskFacts> auto& facts) {
  fields.take("exists", facts.exists);
  fields.take("size-bytes", facts.size_bytes);
  fields.take("space-available-bytes", facts.space_available_bytes);
  fields.take("problem", facts.problem);
  fields.take("identity", facts.identity);
  fields.take("block-bytes", facts.block_bytes);
  fields.take("can-create", facts.can_create);
}

std::string to_json(const TargetDiskFacts& facts) {
  return write_json(facts);
}

Result<TargetDiskFacts> parse_target_disk_facts(std::string_view text) {
  return read_json<TargetDiskFacts>(text, "the answer");
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<PreparedDisk> auto& disk) {
  fields.take("export", disk.export_name);
  fields.take("created", disk.was_created);
  fields.take("taken-up", disk.is_taken_up);
  fields.take("zeroed", disk.starts_zeroed);
  fields.take("block-device", disk.is_block_device);
}

std::string to_json(const PreparedDisk& disk) {
  return write_json(disk);
}

Result<PreparedDisk> parse_prepared_disk(std::string_view text) {
  return read_json<PreparedDisk>(text, "the answer");
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<ReachRequest> auto& request) {
  fields.take("address", request.address);
}

std::string to_json(const ReachRequest& request) {
  return write_json(request);
}

Result<ReachRequest> parse_reach_request(std::string_view text) {
  DISKFERRY_TRY(ReachRequest request, read_json<ReachRequest>(text, "the request"));
  // Nothing but another gateway: no file of certificates is named from outside, and no program is started.
  if (!request.address.starts_with("https://") || request.address.find_first_of("?#@") != std::string::npos)
    return unexpected(fail(ErrorKind::invalid_argument, "read the request")
                          .why("a gateway's address is https://HOST:PORT"));
  return request;
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<GatewayFacts> auto& facts) {
  fields.take("name", facts.name);
  fields.take("version", facts.version);
  fields.take("machine-id", facts.machine_id);
  fields.take("time-ms", facts.time_ms);
  fields.take("move-folder", facts.move_folder);
  fields.take("nbd-port", facts.nbd_port);
  fields.take("nbd-requires-tls", facts.nbd_requires_tls);
}

std::string to_json(const GatewayFacts& facts) {
  return write_json(facts);
}

Result<GatewayFacts> parse_gateway_facts(std::string_view text) {
  return read_json<GatewayFacts>(text, "the answer");
}

std::string_view to_string(TargetEnd end) noexcept {
  return end_names[static_cast<std::size_t>(end)];
}

template <class Fields>
static void list_fields(Fields& fields, ValueOf<FinishRequest> auto& request) {
  fields.take("move", request.move);
  fields.take_required("end", request.end, Words<TargetEnd>{ends, to_string});
}

std::string to_json(const FinishRequest& request) {
  return write_json(request);
}

Result<FinishRequest> parse_finish_request(std::string_view text) {
  return read_json<FinishRequest>(text, "the request");
}

Task<Result<GatewayFacts>> TargetGateway::reach(std::string address) {
  co_return unexpected(fail(ErrorKind::unsupported, "have the other gateway reach", std::move(address)));
}

Task<Result<std::uint64_t>> TargetGateway::measure_link(LinkProbe /*limits*/) {
  co_return unexpected(fail(ErrorKind::unsupported, "measure the link"));
}

Task<Result<StorageView>> TargetGateway::see(StorageQuestion question) {
  co_return unexpected(fail(ErrorKind::unsupported, "look at the storage", question.uri)
                           .why("this gateway does not tell how its host sees storage"));
}

Task<Result<void>> TargetGateway::drop_caches(std::string move) {
  co_return unexpected(
      fail(ErrorKind::unsupported, "drop caches", std::move(move)).why("this gateway does not do that"));
}

}  // namespace diskferry
