// Rules about the hosts, the gateways and the network between them.
#include "tests/unit/move/preflight_facts.hpp"

namespace diskferry::test {
namespace {
class PreflightHosts : public testing::TestWithParam<PreflightRow> {};
TEST_P(PreflightHosts, FindsExactlyThis) {
  check_row(GetParam());
}
const auto name_of = [](const auto& row) { return row.param.name; };
using Facts = PreflightFacts;

INSTANTIATE_TEST_SUITE_P(
    Reached, PreflightHosts,
    testing::Values(
        PreflightRow{"no_target",
                     [](Facts& f) {
                       f.target.reset();
                       f.target_problem = fail(ErrorKind::gone, "connect", "qemu+tls://b/system");
                       f.cpu = CpuFit::unknown;
                     },
                     {"blocker target-unreachable target"}},
        PreflightRow{"no_gateway",
                     [](Facts& f) {
                       f.there.reset();
                       f.gateway_problem = fail(ErrorKind::timed_out, "ask the gateway", "https://b:10810");
                       f.clock_skew_ms.reset();
                       f.round_trip_us.reset();
                     },
                     {"blocker gateway-unreachable gateway"}},
        PreflightRow{
            "same_host", [](Facts& f) { f.target->uuid = f.source.uuid; }, {"blocker same-host target"}},
        PreflightRow{"hosts_without_uuid",
                     [](Facts& f) {
                       f.target->uuid.clear();
                       f.source.uuid.clear();
                     },
                     {}},
        PreflightRow{"same_gateway",
                     [](Facts& f) { f.there->machine_id = f.here.machine_id; },
                     {"blocker same-gateway gateway"}},
        PreflightRow{"other_certificate",
                     [](Facts& f) { f.gateway_certificate_name = "c"; },
                     {"warning gateway-name gateway"}},
        PreflightRow{"certificate_of_the_whole_name",
                     [](Facts& f) { f.gateway_certificate_name = "b.example.org"; },
                     {}},
        PreflightRow{
            "no_way_back",
            [](Facts& f) { f.way_back_problem = fail(ErrorKind::gone, "connect", "https://a:10810"); },
            {"warning no-way-back gateway"}},
        PreflightRow{"way_back", [](Facts& f) { f.seen_from_there = f.here; }, {}},
        PreflightRow{"way_back_elsewhere",
                     [](Facts& f) { f.seen_from_there = good_gateway("c"); },
                     {"warning way-back-elsewhere gateway"}},
        PreflightRow{"no_certificate", [](Facts& f) { f.gateway_certificate_name.clear(); }, {}},
        PreflightRow{"gateway_of_another_host",
                     [](Facts& f) {
                       f.there->name = "c";
                       f.gateway_certificate_name = "c";
                     },
                     {"note gateway-host-unclear gateway"}},
        PreflightRow{"gateway_version",
                     [](Facts& f) { f.there->version = "0.2.0"; },
                     {"note gateway-version gateway"}},
        PreflightRow{"gateway_without_nbd",
                     [](Facts& f) { f.there->nbd_port = 0; },
                     {"blocker gateway-offers-nothing gateway"}},
        PreflightRow{"disks_in_clear",
                     [](Facts& f) { f.there->nbd_requires_tls = false; },
                     {"warning disks-in-clear gateway"}},
        PreflightRow{"not_answered",
                     [](Facts& f) { f.unknown = {{"clock", fail(ErrorKind::timed_out, "ask the time")}}; },
                     {"warning not-known clock"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Between, PreflightHosts,
    testing::Values(
        PreflightRow{"clock_2_s", [](Facts& f) { f.clock_skew_ms = -2000; }, {}},
        PreflightRow{
            "clock_over_2_s", [](Facts& f) { f.clock_skew_ms = -2001; }, {"warning clock-skew clock"}},
        PreflightRow{
            "clock_over_60_s", [](Facts& f) { f.clock_skew_ms = 60001; }, {"blocker clock-skew clock"}},
        PreflightRow{"clock_without_tls",
                     [](Facts& f) {
                       f.clock_skew_ms = 60001;
                       f.request.gateway = "ssh://b";
                       f.request.memory_tls = false;
                       f.request.memory_uri = "unix:///run/m.sock";
                       f.there->nbd_requires_tls = false;
                     },
                     {"warning disks-in-clear gateway", "warning clock-skew clock"}},
        PreflightRow{"far", [](Facts& f) { f.round_trip_us = 20001; }, {"note round-trip network"}},
        PreflightRow{"very_far", [](Facts& f) { f.round_trip_us = 100001; }, {"warning round-trip network"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Versions, PreflightHosts,
    testing::Values(
        PreflightRow{"libvirt_6_7",
                     [](Facts& f) { f.source.libvirt_version = 6007000; },
                     {"blocker libvirt-too-old source"}},
        PreflightRow{"libvirt_6_7_there",
                     [](Facts& f) { f.target->libvirt_version = 6007000; },
                     {"blocker libvirt-too-old target", "note libvirt-older target"}},
        PreflightRow{"libvirt_older",
                     [](Facts& f) { f.target->libvirt_version = 8000000; },
                     {"note libvirt-older target"}},
        PreflightRow{"libvirt_newer", [](Facts& f) { f.target->libvirt_version = 10000000; }, {}},
        PreflightRow{"hypervisor_older",
                     [](Facts& f) { f.target->hypervisor_version = 7002021; },
                     {"warning hypervisor-older target"}},
        PreflightRow{"hypervisor_newer", [](Facts& f) { f.target->hypervisor_version = 8000000; }, {}},
        PreflightRow{"hypervisor_not_known", [](Facts& f) { f.target->hypervisor_version = 0; }, {}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Security, PreflightHosts,
    testing::Values(PreflightRow{"selinux",
                                 [](Facts& f) { f.source.security_models = {"selinux"}; },
                                 {"warning selinux source"}},
                    PreflightRow{"apparmor",
                                 [](Facts& f) { f.target->security_models = {"apparmor"}; },
                                 {"note apparmor target"}},
                    PreflightRow{"other_user",
                                 [](Facts& f) { f.target->hypervisor_user = "+107:+107"; },
                                 {"note hypervisor-user target"}},
                    PreflightRow{"other_user_of_shared_disks",
                                 [](Facts& f) {
                                   f.target->hypervisor_user = "+107:+107";
                                   add_disk(f, "vdb").is_shared = true;
                                 },
                                 {"warning hypervisor-user target", "note disk-shared vdb"}}),
    name_of);

}  // namespace
}  // namespace diskferry::test
