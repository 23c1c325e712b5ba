// What speaks against taking over a machine whose host is gone: a table of facts spoilt in one place.
#include "gateway/move/evacuation.hpp"

#include "tests/unit/move/preflight_facts.hpp"

namespace diskferry::test {
namespace {

using Facts = EvacuationFacts;

/// A host that is off, and a machine against whose evacuation nothing speaks but that nobody vouches for
/// that.
Facts good_evacuation() {
  Facts facts;
  facts.request = {.machine = "web", .definition = "<domain/>", .old_host = "a", .i_have_fenced = "a"};
  facts.host = good_facts();
  facts.host.is_cold = true;
  facts.host.machine.state = VmState::shut_off;
  facts.host.target = good_host("b");
  facts.gateway_host = "b";
  facts.old_host.has_address = true;
  facts.disks = {{.target = "vda", .place = "/images/web.qcow2"}};
  return facts;
}

struct Row {
  std::string name;
  void (*spoil)(Facts&);
  std::vector<std::string> found;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class Evacuation : public testing::TestWithParam<Row> {};
TEST_P(Evacuation, FindsExactlyThis) {
  Facts facts = good_evacuation();
  GetParam().spoil(facts);
  const auto findings = examine(facts);
  EXPECT_EQ(told(findings), GetParam().found);
  for (const Finding& each : findings) {
    EXPECT_FALSE(each.text.empty());
    EXPECT_TRUE(each.severity == Severity::note || !each.remedy.empty()) << each.code;
  }
}

const auto name_of = [](const auto& row) { return row.param.name; };
const std::string fenced = "note fenced-by-operator fence";
Error in_use() {
  return fail(ErrorKind::in_use, "open", "/images/web.qcow2").why("qemu-system-x86 (process 7) has it open");
}

INSTANTIATE_TEST_SUITE_P(Fencing, Evacuation,
                         testing::Values(Row{"said_by_operator", [](Facts&) {}, {fenced}},
                                         Row{"not_at_all",
                                             [](Facts& f) { f.request.i_have_fenced.clear(); },
                                             {"blocker not-fenced fence"}},
                                         Row{"another_host",
                                             [](Facts& f) { f.request.i_have_fenced = "c"; },
                                             {"blocker other-host-fenced fence"}},
                                         Row{"another_host_in_spite_of_a_command",
                                             [](Facts& f) {
                                               f.request.i_have_fenced = "c";
                                               f.has_fence_command = true;
                                             },
                                             {"blocker other-host-fenced fence"}},
                                         Row{"by_command",
                                             [](Facts& f) {
                                               f.request.i_have_fenced.clear();
                                               f.has_fence_command = true;
                                             },
                                             {"note fence-command fence"}},
                                         Row{"it_is_this_host",
                                             [](Facts& f) {
                                               f.request.old_host = "b.example.org";
                                               f.request.i_have_fenced = "b.example.org";
                                             },
                                             {"blocker same-host old-host", fenced}}),
                         name_of);

INSTANTIATE_TEST_SUITE_P(
    OldHost, Evacuation,
    testing::Values(Row{"has_no_address",
                        [](Facts& f) { f.old_host.has_address = false; },
                        {"blocker old-host-unknown old-host", fenced}},
                    Row{"answers",
                        [](Facts& f) { f.old_host = {.has_address = true, .answers = true, .port = 22}; },
                        {"blocker old-host-answers old-host", fenced}},
                    Row{"runs_it",
                        [](Facts& f) {
                          f.old_host.answers = true;
                          f.old_libvirt = AskedHost{.uri = "qemu+tls://a/system", .state = VmState::running};
                        },
                        {"blocker runs-there old-host", fenced}},
                    Row{"has_it_shut_off",
                        [](Facts& f) {
                          f.old_libvirt = AskedHost{.uri = "qemu+tls://a/system", .state = VmState::shut_off};
                        },
                        {"blocker old-host-answers old-host", fenced}},
                    Row{"its_hypervisor_alone_is_silent",
                        [](Facts& f) {
                          f.old_host = {.has_address = true, .answers = true, .port = 16514, .refused = true};
                          f.old_libvirt = AskedHost{.uri = "qemu+tls://a/system",
                                                    .problem = fail(ErrorKind::gone, "connect")};
                        },
                        {"blocker old-host-answers old-host", fenced}},
                    Row{"is_not_where_it_was_sent",
                        [](Facts& f) { f.recorded_host = "c"; },
                        {"warning record-elsewhere old-host", fenced}},
                    Row{"is_where_it_was_sent", [](Facts& f) { f.recorded_host = "a"; }, {fenced}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Elsewhere, Evacuation,
    testing::Values(
        Row{"runs_on_another_host",
            [](Facts& f) { f.others = {{.uri = "qemu+tls://c/system", .state = VmState::running}}; },
            {"blocker runs-elsewhere qemu+tls://c/system", fenced}},
        Row{"defined_on_another_host",
            [](Facts& f) { f.others = {{.uri = "qemu+tls://c/system", .state = VmState::shut_off}}; },
            {fenced}},
        Row{"another_host_is_silent",
            [](Facts& f) {
              f.others = {{.uri = "qemu+tls://c/system", .problem = fail(ErrorKind::gone, "connect")}};
            },
            {"warning host-not-asked qemu+tls://c/system", fenced}},
        Row{"runs_here", [](Facts& f) { f.state_here = VmState::running; }, {"note runs-here machine"}},
        Row{"runs_here_and_there",
            [](Facts& f) {
              f.state_here = VmState::running;
              f.old_libvirt = AskedHost{.uri = "qemu+tls://a/system", .state = VmState::running};
            },
            {"blocker runs-there old-host", "note runs-here machine"}},
        Row{"paused_here",
            [](Facts& f) { f.state_here = VmState::paused; },
            {"blocker paused-here machine", fenced}},
        Row{"gateway_of_another_host",
            [](Facts& f) { f.gateway_host = "c"; },
            {"blocker gateway-elsewhere gateway", fenced}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    MachineAndDisks, Evacuation,
    testing::Values(
        Row{"definition_of_another",
            [](Facts& f) { f.request.machine = "db"; },
            {"blocker other-machine machine", fenced}},
        Row{"no_uuid", [](Facts& f) { f.host.machine.uuid.clear(); }, {"blocker no-uuid machine", fenced}},
        Row{"disk_in_use",
            [](Facts& f) { f.disks.front().problem = in_use(); },
            {"blocker disk-in-use vda", fenced}},
        Row{"disk_missing",
            [](Facts& f) {
              f.disks.front().problem = fail(ErrorKind::not_found, "open", "/images/web.qcow2");
            },
            {"blocker disk-missing vda", fenced}},
        Row{"disk_of_another_kind",
            [](Facts& f) { f.disks.front().problem = fail(ErrorKind::unsupported, "open", "rbd://p/i"); },
            {"warning disk-not-looked-at vda", fenced}},
        Row{"disk_half_copied",
            [](Facts& f) { f.disks.front().is_unfinished_move = true; },
            {"blocker disk-unfinished vda", fenced}},
        Row{"disk_left_behind",
            [](Facts& f) { f.disks.front().was_left_behind = true; },
            {"blocker disk-left-behind vda", fenced}},
        Row{"no_such_disk",
            [](Facts& f) { f.request.disks = {{.target = "vdz", .uri = "/x"}}; },
            {"blocker no-such-disk vdz", fenced}},
        Row{"no_such_machine_type",
            [](Facts& f) { f.host.machine.machine = "pc-q35-9.0"; },
            {"blocker no-such-machine-type target", fenced}},
        Row{"no_such_network",
            [](Facts& f) { f.host.target->networks.clear(); },
            {"blocker no-such-network 52:54:00:00:00:01", fenced}},
        Row{"name_taken",
            [](Facts& f) { f.host.machines_there = {{.name = "web", .uuid = "x"}}; },
            {"blocker name-taken machine", fenced}}),
    name_of);

TEST(EvacuatedFormat, IsWhatWasSaidElseTheEndingElseAsDefined) {
  VmDisk disk;
  disk.format = "qcow2";
  EXPECT_EQ(format_of({.uri = "/a.raw", .format = "qcow2"}, disk), "qcow2");
  EXPECT_EQ(format_of({.uri = "/a.raw"}, disk), "raw");
  EXPECT_EQ(format_of({.uri = "/dev/vg/a"}, disk), "qcow2");
  disk.format = "raw";
  EXPECT_EQ(format_of({.uri = "/a.qcow2"}, disk), "qcow2");
  disk.format.clear();
  EXPECT_EQ(format_of({.uri = "/dev/vg/a"}, disk), "raw");
}

TEST(EvacuationRequest, GoesThroughJson) {
  const EvacuationRequest request{.machine = "web",
                                  .definition = "<domain/>",
                                  .old_host = "a",
                                  .old_address = "10.0.0.1",
                                  .old_libvirt = "qemu+ssh://a/system",
                                  .destination = "qemu:///system",
                                  .ask = {"qemu+tls://c/system"},
                                  .disks = {{.target = "vda", .uri = "/r/web.qcow2", .format = "qcow2"}},
                                  .networks = {{"default", "lan"}},
                                  .machine_type = "pc-q35-7.2",
                                  .cpu = "host-model",
                                  .i_have_fenced = "a",
                                  .start = false};
  const auto read = parse_evacuation_request(to_json(request));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(to_json(*read), to_json(request));
}

TEST(EvacuationRequest, RefusesWhatMakesNoSense) {
  for (const std::string_view text :
       {R"({})", R"({"machine":"web","definition":"<domain/>"})", R"({"machine":"web","fenced":true})",
        R"({"machine":"web","cpu":"<cpu/>"})", R"({"machine":"web","disks":[{"target":"vda"}]})",
        R"({"machine":"web","disks":[{"target":"vda","uri":"/x","format":"vmdk"}]})"})
    EXPECT_FALSE(parse_evacuation_request(text)) << text;
  EXPECT_TRUE(parse_evacuation_request(R"({"machine":"web"})"));
}

}  // namespace
}  // namespace diskferry::test
