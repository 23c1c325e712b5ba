// Values that are stored or sent: every field comes back, and what is wrong is refused.
#include "gateway/move/move_record.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/request.hpp"
#include "gateway/move/target_gateway.hpp"
#include "tests/support/test_runtime.hpp"

#include <functional>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

template <class T>
ErrorKind kind_of(const Result<T>& result) {
  EXPECT_FALSE(result);
  return result ? ErrorKind::internal : result.error().kind();
}

MoveRequest full_request() {
  return {.domain = "vm \"1\"\n",
          .source = "qemu:///system",
          .destination = "qemu+ssh://other/system",
          .gateway = "https://other:8443",
          .disks = {{"vda", "/images/a.qcow2", "qcow2"}, {"vdb", "nbd://host/x", "raw"}},
          .cold = true,
          .overwrite = true,
          .networks = {{"br0", "br1"}, {"default", "lan"}},
          .new_name = "vm-2",
          .machine_type = "pc-q35-7.2",
          .cpu = "host-model",
          .bytes_per_s = UINT64_MAX,
          .max_pause_ms = 17,
          .timeout_s = 18,
          .timeout_action = TimeoutAction::post_copy,
          .auto_converge = true,
          .post_copy = true,
          .parallel = 4,
          .compression = "zstd",
          .memory_tls = true,
          .memory_uri = "tcp://10.0.0.1",
          .connections = 8,
          .keep_partial = true,
          .keep_source = true,
          .verify = false,
          .verify_running = true};
}

TEST(MoveRequest, EveryFieldComesBack) {
  const MoveRequest wanted = full_request();
  const MoveRequest got = must(parse_move_request(to_json(wanted)));
  EXPECT_EQ(to_json(got), to_json(wanted));
  EXPECT_EQ(got.domain, wanted.domain);
  EXPECT_EQ(got.source, wanted.source);
  EXPECT_EQ(got.destination, wanted.destination);
  EXPECT_EQ(got.gateway, wanted.gateway);
  ASSERT_EQ(got.disks.size(), 2u);
  EXPECT_EQ(got.disks[1].target, "vdb");
  EXPECT_EQ(got.disks[1].uri, "nbd://host/x");
  EXPECT_EQ(got.disks[1].format, "raw");
  EXPECT_TRUE(got.cold && got.overwrite && got.auto_converge && got.post_copy && got.memory_tls &&
              got.keep_partial && got.keep_source && got.verify_running);
  EXPECT_FALSE(got.verify);
  EXPECT_EQ(got.networks, wanted.networks);
  EXPECT_EQ(got.new_name, "vm-2");
  EXPECT_EQ(got.machine_type, "pc-q35-7.2");
  EXPECT_EQ(got.cpu, "host-model");
  EXPECT_EQ(got.bytes_per_s, UINT64_MAX);
  EXPECT_EQ(got.max_pause_ms, 17u);
  EXPECT_EQ(got.timeout_s, 18u);
  EXPECT_EQ(got.timeout_action, TimeoutAction::post_copy);
  EXPECT_EQ(got.parallel, 4u);
  EXPECT_EQ(got.compression, "zstd");
  EXPECT_EQ(got.memory_uri, "tcp://10.0.0.1");
  EXPECT_EQ(got.connections, 8u);
}

TEST(MoveRequest, AbsentFieldsAreTheDefaults) {
  const MoveRequest got = must(parse_move_request(R"({"domain":"vm","destination":"qemu:///system"})"));
  EXPECT_EQ(to_json(got), to_json(MoveRequest{.domain = "vm", .destination = "qemu:///system"}));
}

TEST(MoveRequest, WhatIsWrongIsRefused) {
  // Behind fields that make a valid request.
  for (const char* field : {R"("unknown":1)",
                            R"("cold":1)",
                            R"("cold":"true")",
                            R"("parallel":-1)",
                            R"("parallel":4294967296)",
                            R"("timeout-s":1.5)",
                            R"("bytes-per-second":18446744073709551616)",
                            R"("new-name":3)",
                            R"("new-name":"a\u0000b")",
                            R"("networks":[])",
                            R"("networks":{"a":1})",
                            R"("networks":{"a":"b\u0000c"})",
                            R"("disks":{})",
                            R"("disks":[1])",
                            R"("disks":[{}])",
                            R"("disks":[{"target":"vda"}])",
                            R"("disks":[{"target":"vda","uri":"/a","what":1}])",
                            R"("disks":[{"target":"vda","uri":"/a","format":"vmdk"}])",
                            R"("disks":[{"target":"vda","uri":"/a"},{"target":"vda","uri":"/b"}])",
                            R"("machine-type":"pc-q35-7.2")",
                            R"("cpu":"host-model")",
                            R"("cold":true,"cpu":"<cpu/>")",
                            R"("timeout-action":"wait")",
                            R"("timeout-action":"post-copy")"}) {
    const std::string text = R"({"domain":"vm","destination":"qemu:///system",)" + std::string(field) + "}";
    EXPECT_EQ(kind_of(parse_move_request(text)), ErrorKind::invalid_argument) << text;
  }
  EXPECT_EQ(kind_of(parse_move_request(R"({"destination":"qemu:///system"})")), ErrorKind::invalid_argument);
  EXPECT_EQ(kind_of(parse_move_request(R"({"domain":"vm"})")), ErrorKind::invalid_argument);
}

TEST(MoveRequest, MoreDisksThanAnyMachineHasAreRefused) {
  MoveRequest request{.domain = "vm", .destination = "qemu:///system"};
  for (int i = 0; i < 256; ++i) request.disks.push_back({"d" + std::to_string(i), "/images/x", ""});
  must(check(request));
  request.disks.push_back({"one-more", "/images/x", ""});
  EXPECT_EQ(kind_of(check(request)), ErrorKind::invalid_argument);
}

MoveState full_state() {
  MoveState state{.phase = Phase::switching,
                  .machine = "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
                  .way = MoveWayKind::qmp,
                  .was_paused = true,
                  .is_fenced = true,
                  .is_persistent = false,
                  .is_cold = true,
                  .destination_xml = "<domain>\n\"&</domain>",
                  .persistent_xml = "<p/>",
                  .timeline = {{Phase::planned, 1}, {Phase::bulk, -2}},
                  .pause = PauseParts{1, 2, 3, 4, 5},
                  .warnings = {"one", "two"},
                  .leftovers = {"three"}};
  for (const DiskRoute route : {DiskRoute::gateway, DiskRoute::through, DiskRoute::direct, DiskRoute::shared})
    state.disks.push_back({.target = "vda",
                           .source = "/a",
                           .source_format = "raw",
                           .uri = "/b",
                           .format = "qcow2",
                           .route = route,
                           .size_bytes = UINT64_MAX,
                           .drive = "drive-virtio-disk0",
                           .export_name = "m-vda",
                           .was_created = true,
                           .is_taken_up = true,
                           .is_block_device = true});
  return state;
}

TEST(MoveState, EveryFieldComesBack) {
  const MoveState wanted = full_state();
  const MoveState got = must(parse_move_state(to_json(wanted)));
  EXPECT_EQ(to_json(got), to_json(wanted));
  EXPECT_EQ(got.phase, Phase::switching);
  EXPECT_EQ(got.machine, wanted.machine);
  EXPECT_EQ(got.way, MoveWayKind::qmp);
  EXPECT_TRUE(got.was_paused && got.is_fenced && got.is_cold);
  EXPECT_FALSE(got.is_persistent);
  ASSERT_EQ(got.disks.size(), 4u);
  EXPECT_EQ(got.disks[1].route, DiskRoute::through);
  EXPECT_EQ(got.disks[3].route, DiskRoute::shared);
  EXPECT_EQ(got.disks[0].size_bytes, UINT64_MAX);
  EXPECT_EQ(got.disks[0].drive, "drive-virtio-disk0");
  EXPECT_EQ(got.disks[0].export_name, "m-vda");
  EXPECT_TRUE(got.disks[0].was_created && got.disks[0].is_taken_up && got.disks[0].is_block_device);
  EXPECT_EQ(got.destination_xml, wanted.destination_xml);
  EXPECT_EQ(got.persistent_xml, "<p/>");
  ASSERT_EQ(got.timeline.size(), 2u);
  EXPECT_EQ(got.timeline[1].phase, Phase::bulk);
  EXPECT_EQ(got.timeline[1].at_ms, -2);
  ASSERT_TRUE(got.pause);
  EXPECT_EQ(got.pause->until_flush_us, 1u);
  EXPECT_EQ(got.pause->hypervisor_ms, 5u);
  EXPECT_EQ(got.warnings, wanted.warnings);
  EXPECT_EQ(got.leftovers, wanted.leftovers);
}

TEST(MoveState, AnEmptyOneIsAMoveThatWasNotBegun) {
  EXPECT_EQ(to_json(must(parse_move_state("{}"))), to_json(MoveState{}));
  EXPECT_FALSE(must(parse_move_state(to_json(MoveState{}))).pause);
}

TEST(MoveState, WhatIsWrongIsRefused) {
  for (const char* text :
       {R"({"phase":"gone"})", R"({"way":"by-air"})", R"({"phase":3})", R"({"disks":[{"route":"by-air"}]})",
        R"({"disks":[[]]})", R"({"timeline":[{"phase":"planned","at-ms":1.5}]})",
        R"({"timeline":[{"at-ms":1}]})", R"({"pause":3})", R"({"pause":{"drain-us":-1}})",
        R"({"pause":{"other":1}})", R"({"warnings":[1]})", R"({"warnings":["a\u0000b"]})", R"({"other":1})"})
    EXPECT_EQ(kind_of(parse_move_state(text)), ErrorKind::invalid_argument) << text;
}

TEST(MoveState, ARouteFollowsFromTheTarget) {
  EXPECT_EQ(route_of("file", "raw", true), DiskRoute::gateway);
  EXPECT_EQ(route_of("file", "raw", false), DiskRoute::gateway);
  EXPECT_EQ(route_of("file", "qcow2", true), DiskRoute::through);
  EXPECT_EQ(route_of("file", "qcow2", false), DiskRoute::gateway);
  EXPECT_EQ(route_of("rbd", "raw", true), DiskRoute::direct);
}

TargetDiskRequest full_target() {
  return {.move = "m-1",
          .machine = "uuid",
          .disk = "vda",
          .uri = "/images/\"a\"",
          .format = "qcow2",
          .size_bytes = UINT64_MAX,
          .overwrite = true,
          .through_hypervisor = true,
          .hypervisor_export = "drive-virtio-disk0",
          .monitor = "/run/qemu/vm.qmp"};
}

TEST(TargetValues, EveryFieldComesBack) {
  const auto request = must(parse_target_disk_request(to_json(full_target())));
  EXPECT_EQ(to_json(request), to_json(full_target()));
  EXPECT_EQ(request.uri, "/images/\"a\"");
  EXPECT_EQ(request.hypervisor_export, "drive-virtio-disk0");
  EXPECT_EQ(request.monitor, "/run/qemu/vm.qmp");
  EXPECT_TRUE(request.overwrite && request.through_hypervisor);

  const TargetDiskFacts facts{true, 1, 2, "why", "which", 4096, true};
  const auto facts_back = must(parse_target_disk_facts(to_json(facts)));
  EXPECT_EQ(to_json(facts_back), to_json(facts));
  EXPECT_EQ(facts_back.block_bytes, 4096u);
  EXPECT_EQ(facts_back.identity, "which");

  const PreparedDisk prepared{"m-vda", true, true, true, true};
  const auto prepared_back = must(parse_prepared_disk(to_json(prepared)));
  EXPECT_EQ(to_json(prepared_back), to_json(prepared));
  EXPECT_TRUE(prepared_back.was_created && prepared_back.is_taken_up && prepared_back.starts_zeroed &&
              prepared_back.is_block_device);

  const GatewayFacts gateway{"g", "1.0", "id", -5, "/run/m", 65535, false};
  const auto gateway_back = must(parse_gateway_facts(to_json(gateway)));
  EXPECT_EQ(to_json(gateway_back), to_json(gateway));
  EXPECT_EQ(gateway_back.nbd_port, 65535);
  EXPECT_FALSE(gateway_back.nbd_requires_tls);

  for (const TargetEnd end : {TargetEnd::keep, TargetEnd::leave, TargetEnd::remove}) {
    const auto finish = must(parse_finish_request(to_json(FinishRequest{"m-1", end})));
    EXPECT_EQ(finish.move, "m-1");
    EXPECT_EQ(finish.end, end);
  }
}

TEST(TargetValues, OnlyAGatewayCanBeReached) {
  EXPECT_EQ(must(parse_reach_request(to_json(ReachRequest{"https://a:10810"}))).address, "https://a:10810");
  for (const char* address :
       {"", "a", "http://a", "ssh://a", "unix:/run/x", "https://a?certificates=/tmp", "https://user@a"})
    EXPECT_EQ(kind_of(parse_reach_request(to_json(ReachRequest{address}))), ErrorKind::invalid_argument)
        << address;
}

TEST(TargetValues, AnEndMustBeSaid) {
  EXPECT_EQ(kind_of(parse_finish_request(R"({"move":"m"})")), ErrorKind::invalid_argument);
  EXPECT_EQ(kind_of(parse_finish_request(R"({"move":"m","end":"destroy"})")), ErrorKind::invalid_argument);
  EXPECT_EQ(kind_of(parse_gateway_facts(R"({"nbd-port":65536})")), ErrorKind::invalid_argument);
}

TEST(TargetRecords, ComeBackAndOtherVersionsAreRefused) {
  const std::vector<TargetDiskRecord> wanted{{full_target(), "client", true, false},
                                             {{}, "", false, true, true}};
  const auto got = must(parse_target_records(to_json(wanted)));
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(to_json(got), to_json(wanted));
  EXPECT_EQ(to_json(got[0].request), to_json(full_target()));
  EXPECT_TRUE(got[0].was_created && got[1].is_left && got[1].is_kept && !got[0].is_kept);
  EXPECT_EQ(kind_of(parse_target_records("{}")), ErrorKind::unsupported);
  EXPECT_EQ(kind_of(parse_target_records(R"({"version":2,"disks":[]})")), ErrorKind::unsupported);
  EXPECT_EQ(kind_of(parse_target_records(R"({"version":1,"disks":[{"request":{}}]})")),
            ErrorKind::invalid_argument);
}

/// Every reader, with input that no writer of ours made.
TEST(Values, HostileTextIsRefusedByEveryReader) {
  const std::vector<std::string> texts{
      "",
      "null",
      "[]",
      "\"text\"",
      "{",
      "{}}",
      std::string("{\"a\":\"\xff\xfe\"}"),
      std::string("{\"a\":") + std::string(1000, '[') + std::string(1000, ']') + "}",
      "{\"a\":\"" + std::string(1u << 20, 'x') + "\"}",
      std::string("{}\0{}", 5)};
  const std::vector<std::function<bool(std::string_view)>> refused{
      [](std::string_view text) { return !parse_move_request(text); },
      [](std::string_view text) { return !parse_move_state(text); },
      [](std::string_view text) { return !parse_target_disk_request(text); },
      [](std::string_view text) { return !parse_target_disk_facts(text); },
      [](std::string_view text) { return !parse_prepared_disk(text); },
      [](std::string_view text) { return !parse_gateway_facts(text); },
      [](std::string_view text) { return !parse_finish_request(text); },
      [](std::string_view text) { return !parse_target_machine_call(text); },
      [](std::string_view text) { return !parse_target_machine_answer(text); },
      [](std::string_view text) { return !parse_target_records(text); }};
  for (std::size_t reader = 0; reader < refused.size(); ++reader) {
    for (const std::string& text : texts)
      EXPECT_TRUE(refused[reader](text)) << "reader " << reader << ": " << text.substr(0, 40);
  }
}

}  // namespace
}  // namespace diskferry
