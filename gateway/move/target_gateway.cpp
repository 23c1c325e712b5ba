// The values in and out of JSON.
#include "gateway/move/target_gateway.hpp"

#include "gateway/move/json_fields.hpp"

#include <array>

#include <boost/json/serialize.hpp>

namespace diskferry {
namespace json = boost::json;

std::string to_json(const TargetDiskRequest& request) {
  json::object object{{"move", request.move},
                      {"machine", request.machine},
                      {"disk", request.disk},
                      {"uri", request.uri},
                      {"format", request.format},
                      {"size-bytes", request.size_bytes},
                      {"overwrite", request.overwrite},
                      {"through-hypervisor", request.through_hypervisor},
                      {"hypervisor-export", request.hypervisor_export}};
  // Older gateways know no such field, and need none for the other ways.
  if (!request.monitor.empty()) object["monitor"] = request.monitor;
  return json::serialize(object);
}

Result<TargetDiskRequest> parse_target_disk_request(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the request"));
  TargetDiskRequest request;
  JsonFields fields(object, "the request");
  fields.take("move", request.move);
  fields.take("machine", request.machine);
  fields.take("disk", request.disk);
  fields.take("uri", request.uri);
  fields.take("format", request.format);
  fields.take("size-bytes", request.size_bytes);
  fields.take("overwrite", request.overwrite);
  fields.take("through-hypervisor", request.through_hypervisor);
  fields.take("hypervisor-export", request.hypervisor_export);
  fields.take("monitor", request.monitor);
  DISKFERRY_CHECK(fields.finish());
  return request;
}

std::string to_json(const TargetDiskFacts& facts) {
  return json::serialize(json::object{{"exists", facts.exists},
                                      {"size-bytes", facts.size_bytes},
                                      {"space-available-bytes", facts.space_available_bytes},
                                      {"problem", facts.problem},
                                      {"identity", facts.identity},
                                      {"block-bytes", facts.block_bytes}});
}

Result<TargetDiskFacts> parse_target_disk_facts(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the answer"));
  TargetDiskFacts facts;
  JsonFields fields(object, "the answer");
  fields.take("exists", facts.exists);
  fields.take("size-bytes", facts.size_bytes);
  fields.take("space-available-bytes", facts.space_available_bytes);
  fields.take("problem", facts.problem);
  fields.take("identity", facts.identity);
  fields.take("block-bytes", facts.block_bytes);
  DISKFERRY_CHECK(fields.finish());
  return facts;
}

std::string to_json(const PreparedDisk& disk) {
  return json::serialize(json::object{{"export", disk.export_name},
                                      {"created", disk.was_created},
                                      {"taken-up", disk.is_taken_up},
                                      {"zeroed", disk.starts_zeroed},
                                      {"block-device", disk.is_block_device}});
}

Result<PreparedDisk> parse_prepared_disk(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the answer"));
  PreparedDisk disk;
  JsonFields fields(object, "the answer");
  fields.take("export", disk.export_name);
  fields.take("created", disk.was_created);
  fields.take("taken-up", disk.is_taken_up);
  fields.take("zeroed", disk.starts_zeroed);
  fields.take("block-device", disk.is_block_device);
  DISKFERRY_CHECK(fields.finish());
  return disk;
}

std::string to_json(const ReachRequest& request) {
  return json::serialize(json::object{{"address", request.address}});
}

Result<ReachRequest> parse_reach_request(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the request"));
  ReachRequest request;
  JsonFields fields(object, "the request");
  fields.take("address", request.address);
  DISKFERRY_CHECK(fields.finish());
  // Nothing but another gateway: no file of certificates is named from outside, and no program is started.
  if (!request.address.starts_with("https://") || request.address.find_first_of("?#@") != std::string::npos)
    return unexpected(fail(ErrorKind::invalid_argument, "read the request")
                          .why("a gateway's address is https://HOST:PORT"));
  return request;
}

Task<Result<GatewayFacts>> TargetGateway::reach(std::string address) {
  co_return unexpected(fail(ErrorKind::unsupported, "have the other gateway reach", std::move(address)));
}

Task<Result<std::uint64_t>> TargetGateway::measure_link(LinkProbe /*limits*/) {
  co_return unexpected(fail(ErrorKind::unsupported, "measure the link"));
}

std::string to_json(const GatewayFacts& facts) {
  return json::serialize(json::object{{"name", facts.name},
                                      {"version", facts.version},
                                      {"machine-id", facts.machine_id},
                                      {"time-ms", facts.time_ms},
                                      {"move-folder", facts.move_folder},
                                      {"nbd-port", facts.nbd_port},
                                      {"nbd-requires-tls", facts.nbd_requires_tls}});
}

Result<GatewayFacts> parse_gateway_facts(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the answer"));
  GatewayFacts facts;
  unsigned port = 0;
  JsonFields fields(object, "the answer");
  fields.take("name", facts.name);
  fields.take("version", facts.version);
  fields.take("machine-id", facts.machine_id);
  fields.take("time-ms", facts.time_ms);
  fields.take("move-folder", facts.move_folder);
  fields.take("nbd-port", port);
  fields.take("nbd-requires-tls", facts.nbd_requires_tls);
  DISKFERRY_CHECK(fields.finish());
  if (port > UINT16_MAX)
    return unexpected(fail(ErrorKind::protocol, "read the answer").why("that is no port"));
  facts.nbd_port = static_cast<std::uint16_t>(port);
  return facts;
}

Task<Result<StorageView>> TargetGateway::see(StorageQuestion question) {
  co_return unexpected(fail(ErrorKind::unsupported, "look at the storage", question.uri)
                           .why("this gateway does not tell how its host sees storage"));
}

Task<Result<void>> TargetGateway::drop_caches(std::string move) {
  co_return unexpected(
      fail(ErrorKind::unsupported, "drop caches", std::move(move)).why("this gateway does not do that"));
}

namespace {
constexpr std::array<std::string_view, 3> ends{"keep", "leave", "remove"};
}  // namespace

std::string_view to_string(TargetEnd end) noexcept {
  return ends[static_cast<std::size_t>(end)];
}

std::string to_json(const FinishRequest& request) {
  return json::serialize(json::object{{"move", request.move}, {"end", to_string(request.end)}});
}

Result<FinishRequest> parse_finish_request(std::string_view text) {
  DISKFERRY_TRY(const json::object object, parse_json_object(text, "the request"));
  FinishRequest request;
  std::string end;
  JsonFields fields(object, "the request");
  fields.take("move", request.move);
  fields.take("end", end);
  DISKFERRY_CHECK(fields.finish());
  DISKFERRY_TRY(request.end, parse_target_end(end));
  return request;
}

Result<TargetEnd> parse_target_end(std::string_view text) {
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] == text) return static_cast<TargetEnd>(i);
  }
  return unexpected(
      fail(ErrorKind::invalid_argument, "read the request").why("an end is keep, leave or remove"));
}

}  // namespace diskferry
