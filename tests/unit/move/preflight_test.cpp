// Rules about the machine, its devices and how the move was asked for; and what holds for all findings.
#include "gateway/move/preflight.hpp"

#include "tests/unit/move/preflight_facts.hpp"

#include <algorithm>
#include <cctype>

namespace diskferry::test {

void check_row(const PreflightRow& row) {
  PreflightFacts facts = good_facts();
  row.spoil(facts);
  const std::vector<Finding> findings = examine(facts);
  EXPECT_EQ(told(findings), row.found);
  EXPECT_TRUE(std::ranges::is_sorted(findings, {}, &Finding::severity));
  for (const Finding& each : findings) {
    EXPECT_FALSE(each.text.empty()) << each.code;
    EXPECT_EQ(each.remedy.empty(), each.severity == Severity::note) << each.code;
    EXPECT_TRUE(std::ranges::all_of(each.code, [](unsigned char c) {
      return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '-';
    })) << each.code;
  }
}

namespace {
class Preflight : public testing::TestWithParam<PreflightRow> {};
TEST_P(Preflight, FindsExactlyThis) {
  check_row(GetParam());
}
const auto name_of = [](const auto& row) { return row.param.name; };
using Facts = PreflightFacts;

void shut_off(Facts& facts) {
  facts.machine.state = VmState::shut_off;
  facts.is_cold = true;
}

INSTANTIATE_TEST_SUITE_P(
    Machine, Preflight,
    testing::Values(
        PreflightRow{"nothing", [](Facts&) {}, {}},
        PreflightRow{"absent",
                     [](Facts& f) { f.machine.state = VmState::absent; },
                     {"blocker machine-missing machine"}},
        PreflightRow{"crashed",
                     [](Facts& f) { f.machine.state = VmState::crashed; },
                     {"blocker machine-crashed machine"}},
        PreflightRow{
            "paused", [](Facts& f) { f.machine.state = VmState::paused; }, {"note machine-paused machine"}},
        PreflightRow{"shut_off", shut_off, {"note machine-shut-off machine"}},
        PreflightRow{"shut_off_and_not_cold",
                     [](Facts& f) { f.machine.state = VmState::shut_off; },
                     {"blocker machine-not-running machine"}},
        PreflightRow{
            "cold_and_running", [](Facts& f) { f.is_cold = true; }, {"blocker machine-runs machine"}},
        PreflightRow{"transient",
                     [](Facts& f) { f.machine.is_persistent = false; },
                     {"note machine-transient machine"}},
        PreflightRow{"busy", [](Facts& f) { f.running_job = "a snapshot"; }, {"blocker job-running machine"}},
        PreflightRow{
            "snapshots", [](Facts& f) { f.machine.has_snapshots = true; }, {"blocker snapshots machine"}},
        PreflightRow{
            "cpu_lacks", [](Facts& f) { f.cpu = CpuFit::lacks; }, {"blocker cpu-lacks-features cpu"}},
        PreflightRow{
            "cpu_of_the_host", [](Facts& f) { f.cpu = CpuFit::same_only; }, {"warning cpu-of-the-host cpu"}},
        PreflightRow{"cpu_unknown", [](Facts& f) { f.cpu = CpuFit::unknown; }, {"warning cpu-unknown cpu"}},
        PreflightRow{
            "invtsc",
            [](Facts& f) { f.machine.cpu_xml = "<cpu><feature policy='require' name='invtsc'/></cpu>"; },
            {"warning cpu-invtsc cpu"}},
        PreflightRow{"machine_type",
                     [](Facts& f) { f.machine.machine = "pc-q35-9.0"; },
                     {"blocker no-such-machine-type target"}},
        PreflightRow{"architecture",
                     [](Facts& f) { f.machine.architecture = "riscv64"; },
                     {"blocker no-emulator target"}},
        PreflightRow{"no_kvm_there",
                     [](Facts& f) { f.target->guests.front().domain_type = "qemu"; },
                     {"blocker no-such-domain-type target"}},
        PreflightRow{"emulator_elsewhere",
                     [](Facts& f) { f.machine.emulator = "/usr/libexec/qemu-kvm"; },
                     {"warning emulator-elsewhere target"}},
        PreflightRow{"capabilities_not_known", [](Facts& f) { f.target->guests.clear(); }, {}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Room, Preflight,
    testing::Values(
        PreflightRow{"as_many_cpus", [](Facts& f) { f.machine.vcpus = 8; }, {}},
        PreflightRow{"more_cpus", [](Facts& f) { f.machine.vcpus = 9; }, {"warning few-cpus cpu"}},
        PreflightRow{
            "too_many_cpus", [](Facts& f) { f.machine.vcpus = 289; }, {"blocker too-many-vcpus cpu"}},
        PreflightRow{"memory_all_free", [](Facts& f) { f.machine.memory_bytes = 32 * gib; }, {}},
        PreflightRow{"memory_short",
                     [](Facts& f) { f.machine.memory_bytes = 33 * gib; },
                     {"warning memory-short memory"}},
        PreflightRow{"memory_too_small",
                     [](Facts& f) { f.machine.memory_bytes = 65 * gib; },
                     {"blocker memory-too-small memory"}},
        PreflightRow{"name_taken",
                     [](Facts& f) { f.machines_there = {{.name = "web", .uuid = "other"}}; },
                     {"blocker name-taken machine"}},
        PreflightRow{"new_name_taken",
                     [](Facts& f) {
                       f.request.new_name = "web2";
                       f.machines_there = {{.name = "web2", .uuid = "other"}};
                     },
                     {"blocker name-taken machine"}},
        PreflightRow{"old_name_is_of_no_interest",
                     [](Facts& f) {
                       f.request.new_name = "web2";
                       f.machines_there = {{.name = "web", .uuid = "other"}};
                     },
                     {}},
        PreflightRow{
            "runs_there",
            [](Facts& f) { f.machines_there = {{.name = "web", .uuid = "uuid-of-web", .is_active = true}}; },
            {"blocker runs-there machine"}},
        PreflightRow{"uuid_taken",
                     [](Facts& f) { f.machines_there = {{.name = "mail", .uuid = "uuid-of-web"}}; },
                     {"blocker uuid-taken machine"}},
        PreflightRow{"defined_there",
                     [](Facts& f) { f.machines_there = {{.name = "web", .uuid = "uuid-of-web"}}; },
                     {"warning defined-there machine"}},
        PreflightRow{
            "others_there",
            [](Facts& f) { f.machines_there = {{.name = "mail", .uuid = "other", .is_active = true}}; },
            {}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Devices, Preflight,
    testing::Values(
        PreflightRow{"network",
                     [](Facts& f) { f.machine.interfaces[0].source = "lab"; },
                     {"blocker no-such-network 52:54:00:00:00:01"}},
        PreflightRow{"network_mapped",
                     [](Facts& f) {
                       f.machine.interfaces[0].source = "lab";
                       f.request.networks = {{"lab", "default"}};
                     },
                     {}},
        PreflightRow{"mapped_to_nothing",
                     [](Facts& f) { f.request.networks = {{"default", "prod"}}; },
                     {"blocker no-such-network 52:54:00:00:00:01"}},
        PreflightRow{"mapping_not_used",
                     [](Facts& f) { f.request.networks = {{"defualt", "default"}}; },
                     {"warning network-not-used defualt"}},
        PreflightRow{
            "bridge",
            [](Facts& f) { f.machine.interfaces = {{.type = "bridge", .source = "br1", .mac = "m"}}; },
            {"blocker no-such-bridge m"}},
        PreflightRow{
            "bridge_is_there",
            [](Facts& f) { f.machine.interfaces = {{.type = "bridge", .source = "br0", .mac = "m"}}; },
            {}},
        PreflightRow{"bridge_not_known",
                     [](Facts& f) {
                       f.machine.interfaces = {{.type = "bridge", .source = "br1", .mac = "m"}};
                       f.target->lists_interfaces = false;
                     },
                     {"warning bridge-unknown m"}},
        PreflightRow{
            "direct",
            [](Facts& f) { f.machine.interfaces = {{.type = "direct", .source = "eth1", .mac = "m"}}; },
            {"blocker no-such-bridge m"}},
        PreflightRow{"host_interface",
                     [](Facts& f) { f.machine.interfaces = {{.type = "hostdev", .source = "", .mac = "m"}}; },
                     {"blocker host-interface m"}},
        PreflightRow{"vdpa",
                     [](Facts& f) { f.machine.interfaces = {{.type = "vdpa", .source = "", .mac = "m"}}; },
                     {"blocker vdpa-interface m"}},
        PreflightRow{"user_network",
                     [](Facts& f) { f.machine.interfaces = {{.type = "user", .source = "", .mac = "m"}}; },
                     {"warning user-network m"}},
        PreflightRow{
            "vhostuser",
            [](Facts& f) { f.machine.interfaces = {{.type = "vhostuser", .source = "/s", .mac = "m"}}; },
            {"warning vhostuser-interface m"}},
        PreflightRow{"host_device",
                     [](Facts& f) { f.machine.host_devices = {"pci 0000:03:00.0"}; },
                     {"blocker host-device pci 0000:03:00.0"}},
        PreflightRow{
            "folder", [](Facts& f) { f.machine.filesystems = {"src"}; }, {"blocker shared-folder src"}},
        PreflightRow{"folder_while_off",
                     [](Facts& f) {
                       shut_off(f);
                       f.machine.filesystems = {"src"};
                     },
                     {"warning shared-folder src", "note machine-shut-off machine"}},
        PreflightRow{"tpm", [](Facts& f) { f.machine.has_emulated_tpm = true; }, {"warning tpm-state tpm"}},
        PreflightRow{"qemu_arguments",
                     [](Facts& f) { f.machine.has_qemu_arguments = true; },
                     {"warning qemu-arguments machine"}},
        PreflightRow{"encrypted_memory",
                     [](Facts& f) { f.machine.launch_security = "sev"; },
                     {"blocker encrypted-memory memory"}},
        PreflightRow{"nvram", [](Facts& f) { f.machine.nvram = "/nvram/web.fd"; }, {"note nvram firmware"}},
        PreflightRow{"nvram_while_off",
                     [](Facts& f) {
                       shut_off(f);
                       f.machine.nvram = "/nvram/web.fd";
                     },
                     {"warning nvram firmware", "note machine-shut-off machine"}},
        PreflightRow{"firmware",
                     [](Facts& f) { f.machine.loader = "/usr/share/AAVMF/AAVMF_CODE.fd"; },
                     {"warning no-such-firmware firmware"}},
        PreflightRow{
            "firmware_is_there", [](Facts& f) { f.machine.loader = "/usr/share/OVMF/OVMF_CODE_4M.fd"; }, {}},
        PreflightRow{"shared_memory",
                     [](Facts& f) { f.machine.has_shared_memory_device = true; },
                     {"warning shared-memory memory"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Options, Preflight,
    testing::Values(
        PreflightRow{"memory_in_clear",
                     [](Facts& f) { f.request.memory_uri.clear(); },
                     {"warning memory-in-clear memory"}},
        PreflightRow{"memory_tls_with_disks",
                     [](Facts& f) { f.request.memory_tls = true; },
                     {"blocker memory-tls-with-disks memory"}},
        PreflightRow{"memory_tls_alone",
                     [](Facts& f) {
                       f.request.memory_tls = true;
                       f.request.memory_uri.clear();
                       f.request.disks.clear();
                       vda(f).move.reset();
                       vda(f).is_shared = true;
                     },
                     {"note disk-shared vda", "note no-disks machine"}},
        PreflightRow{"post_copy", [](Facts& f) { f.request.post_copy = true; }, {"warning post-copy memory"}},
        PreflightRow{"post_copy_parallel",
                     [](Facts& f) {
                       f.request.post_copy = true;
                       f.request.parallel = 2;
                     },
                     {"blocker post-copy-parallel memory", "warning post-copy memory"}},
        PreflightRow{"zstd_alone",
                     [](Facts& f) {
                       f.request.compression = "zstd";
                       f.source.libvirt_version = f.target->libvirt_version = 9001000;
                     },
                     {"blocker compression-parallel memory"}},
        PreflightRow{"zstd_with_an_old_libvirt",
                     [](Facts& f) {
                       f.request.compression = "zstd";
                       f.request.parallel = 2;
                     },
                     {"blocker compression-libvirt memory"}},
        PreflightRow{"zstd_parallel",
                     [](Facts& f) {
                       f.request.compression = "zstd";
                       f.request.parallel = 2;
                       f.source.libvirt_version = f.target->libvirt_version = 9001000;
                     },
                     {}},
        PreflightRow{"xbzrle", [](Facts& f) { f.request.compression = "xbzrle"; }, {}},
        PreflightRow{"xbzrle_parallel",
                     [](Facts& f) {
                       f.request.compression = "xbzrle";
                       f.request.parallel = 2;
                     },
                     {"blocker compression-parallel memory"}},
        PreflightRow{"mt_post_copy",
                     [](Facts& f) {
                       f.request.compression = "mt";
                       f.request.post_copy = true;
                     },
                     {"blocker compression-post-copy memory", "warning post-copy memory"}},
        PreflightRow{
            "no_time_limit", [](Facts& f) { f.request.timeout_s = 0; }, {"note no-time-limit memory"}},
        PreflightRow{"auto_converge_is_one",
                     [](Facts& f) {
                       f.request.timeout_s = 0;
                       f.request.auto_converge = true;
                     },
                     {}},
        PreflightRow{
            "short_pause", [](Facts& f) { f.request.max_pause_ms = 49; }, {"warning pause-too-short memory"}},
        PreflightRow{"options_while_off",
                     [](Facts& f) {
                       shut_off(f);
                       f.request.post_copy = true;
                     },
                     {"note machine-shut-off machine", "note options-not-used memory"}}),
    name_of);

TEST(PreflightFindings, AreToldAllAtOnce) {
  PreflightFacts facts = good_facts();
  facts.machine.has_snapshots = true;
  facts.machine.vcpus = 9;
  facts.request.networks = {{"default", "prod"}};
  at_target(facts) = {.exists = true, .size_bytes = 10 * gib, .problem = "it exists already"};
  const auto findings = examine(facts);
  EXPECT_EQ(told(findings), (std::vector<std::string>{"blocker snapshots machine",
                                                      "blocker no-such-network 52:54:00:00:00:01",
                                                      "blocker target-exists vda", "warning few-cpus cpu"}));
  EXPECT_TRUE(has_blocker(findings));
  EXPECT_FALSE(has_blocker({{.severity = Severity::warning}, {.severity = Severity::note}}));
}

TEST(PreflightFindings, CannotForgeLines) {
  PreflightFacts facts = good_facts();
  facts.machine.host_devices = {"usb\n\x1b[2Jall is well"};
  for (const Finding& each : examine(facts)) {
    for (const std::string* text : {&each.subject, &each.text, &each.remedy})
      EXPECT_TRUE(std::ranges::none_of(*text, [](unsigned char c) { return std::iscntrl(c) != 0; })) << *text;
  }
}

TEST(PreflightNames, FormatOfATarget) {
  EXPECT_EQ(format_there({.target = "vda", .uri = "/a/b.qcow2"}), "qcow2");
  EXPECT_EQ(format_there({.target = "vda", .uri = "/a/b.qcow2", .format = "raw"}), "raw");
  EXPECT_EQ(format_there({.target = "vda", .uri = "rbd://pool/b"}), "raw");
}

}  // namespace
}  // namespace diskferry::test
