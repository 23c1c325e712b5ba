// Whole definitions: what changes, and that nothing else does.
#include "tests/support/test_runtime.hpp"
#include "tests/unit/hypervisor/domains.hpp"

namespace diskferry {
namespace {
using test::disk_of;
using test::domain_file;
using test::domain_with;
using test::read;
using Texts = std::vector<std::string>;

/// Expects success and gives the result.
RewrittenDomain rewritten(const std::string& xml, const DomainRewrite& changes) {
  auto result = rewrite_domain(xml, changes);
  if (!result) throw std::runtime_error(result.error().message());
  return *std::move(result);
}

class Unchanged : public testing::TestWithParam<std::string> {};
// The files with what libvirt itself writes in double quotes or escapes without need are equal but for that.
TEST_P(Unchanged, ReadsAsItWas) {
  const std::string xml = domain_file(GetParam());
  DomainRewrite changes;
  for (const auto& disk : read(xml).disks) changes.keep_disks.push_back(disk.target);
  const auto result = rewritten(xml, changes);
  EXPECT_EQ(xml_diff(xml, result.xml), "");
  if (GetParam() != "devices.xml") EXPECT_EQ(result.xml, xml);
}
INSTANTIATE_TEST_SUITE_P(Files, Unchanged,
                         testing::Values("migratable.xml", "network_disks.xml", "devices.xml"));

TEST(RewriteDomain, MigratableFormGetsItsNewDisks) {
  const std::string xml = domain_file("migratable.xml");
  const auto result = rewritten(xml, {.disks = {{"vda", BlockDiskSource{"/dev/vg1/web1", "raw"}},
                                                {"sda", NbdDiskSource{.socket = "/run/gw"}}}});
  EXPECT_EQ(xml_diff(xml, result.xml),
            "--- before\n+++ after\n"
            "@@ -23,17 +23,18 @@\n"
            "   <on_crash>destroy</on_crash>\n"
            "   <devices>\n"
            "     <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
            "-    <disk type='file' device='disk'>\n"
            "-      <driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap' queues='2'/>\n"
            "-      <source file='/var/lib/libvirt/images/vda.qcow2'/>\n"
            "+    <disk type='block' device='disk'>\n"
            "+      <driver name='qemu' type='raw' cache='none' io='native' discard='unmap' queues='2'/>\n"
            "+      <source dev='/dev/vg1/web1'/>\n"
            "       <target dev='vda' bus='virtio'/>\n"
            "       <serial>ROOT-01</serial>\n"
            "       <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>\n"
            "     </disk>\n"
            "-    <disk type='file' device='disk'>\n"
            "+    <disk type='network' device='disk'>\n"
            "       <driver name='qemu' type='raw' cache='none'/>\n"
            "-      <source file='/var/lib/libvirt/images/blk.raw'/>\n"
            "-      <backingStore/>\n"
            "+      <source protocol='nbd' tls='no'>\n"
            "+        <host transport='unix' socket='/run/gw'/>\n"
            "+      </source>\n"
            "       <target dev='sda' bus='scsi'/>\n"
            "       <shareable/>\n"
            "       <address type='drive' controller='0' bus='0' target='0' unit='0'/>\n");
  EXPECT_EQ(result.warnings, Texts{});  // the drive without a medium needs nothing
  const auto vm = read(result.xml);
  EXPECT_EQ(disk_of(vm, "vda").source, "/dev/vg1/web1");
  EXPECT_EQ(disk_of(vm, "sda").source, "nbd+unix:///?socket=/run/gw");
}

TEST(RewriteDomain, DisksNobodySpokeOfAreNamed) {
  const std::string xml = domain_file("migratable.xml");
  EXPECT_EQ(
      rewritten(xml, {.keep_disks = {"sda"}}).warnings,
      Texts{"vda: stays as it is and must be found at the destination: /var/lib/libvirt/images/vda.qcow2"});
}

TEST(RewriteDomain, DiskNamedTwice) {
  const std::string xml = domain_file("migratable.xml");
  const DiskRewrite vda{"vda", FileDiskSource{"/a", "raw"}};
  EXPECT_EQ(rewrite_domain(xml, {.disks = {vda, vda}}).error().kind(), ErrorKind::invalid_argument);
  EXPECT_EQ(rewrite_domain(xml, {.disks = {vda}, .keep_disks = {"vda"}}).error().kind(),
            ErrorKind::invalid_argument);
  const auto missing = rewrite_domain(xml, {.keep_disks = {"vdz"}});
  EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
  EXPECT_TRUE(missing.error().message().contains("vda, sda, sdb")) << missing.error().message();
}

TEST(RewriteDomain, IdAndGeneratedLabelsGo) {
  const auto xml = rewritten(domain_file("running.xml"), {}).xml;
  EXPECT_TRUE(xml.starts_with("<domain type='qemu'>\n")) << xml.substr(0, 50);
  EXPECT_FALSE(xml.contains("seclabel"));
  EXPECT_TRUE(xml.contains("<alias name='virtio-disk0'/>"));
  EXPECT_TRUE(xml.ends_with("  </devices>\n</domain>\n"));
}

TEST(RewriteDomain, OperatorsLabelsStay) {
  const std::string labels =
      "<seclabel type='static' model='dac'><label>1:1</label></seclabel>"
      "<seclabel type='dynamic' model='selinux'><baselabel>x</baselabel><label>y</label></seclabel>"
      "<seclabel type='dynamic' model='apparmor'><label>z</label></seclabel><seclabel type='none'/>";
  const auto result = rewritten("<domain><name>t</name><devices/>" + labels + "</domain>", {});
  EXPECT_EQ(
      result.xml,
      "<domain><name>t</name><devices/><seclabel type='static' model='dac'><label>1:1</label></seclabel>"
      "<seclabel type='dynamic' model='selinux'><baselabel>x</baselabel></seclabel><seclabel type='none'/>"
      "</domain>");
}

TEST(RewriteDomain, PersistentFormHasNothingOfTheRun) {
  const auto xml = rewritten(domain_file("running.xml"), {.is_persistent_form = true}).xml;
  for (const char* gone : {"<alias", ".qcow2' index=", "<backingStore type='file' index=", "/dev/pts",
                           "tty=", "state=", "channel/target", "port='5900'", "id='1'>", "seclabel"})
    EXPECT_FALSE(xml.contains(gone)) << gone;
  EXPECT_TRUE(xml.contains("<controller type='pci' index='1' model='pcie-root-port'>"));
  EXPECT_TRUE(xml.contains("<graphics type='vnc' port='-1' autoport='yes'"));
  EXPECT_EQ(read(xml).disks.size(), 3u);
}

TEST(RewriteDomain, PersistentFormOfInterfacesAndAliases) {
  const auto result = rewritten(domain_with("    <interface type='network'>\n"
                                            "      <source network='a' portid='p' bridge='virbr0'/>\n"
                                            "      <target dev='vnet3'/>\n"
                                            "      <alias name='ua-mine'/>\n"
                                            "    </interface>\n"
                                            "    <interface type='bridge'>\n"
                                            "      <source bridge='br0'/>\n"
                                            "      <target dev='tap-of-mine'/>\n"
                                            "      <alias name='net1'/>\n"
                                            "    </interface>\n"),
                                {.is_persistent_form = true});
  EXPECT_EQ(result.xml, domain_with("    <interface type='network'>\n"
                                    "      <source network='a'/>\n"
                                    "      <alias name='ua-mine'/>\n"
                                    "    </interface>\n"
                                    "    <interface type='bridge'>\n"
                                    "      <source bridge='br0'/>\n"
                                    "      <target dev='tap-of-mine'/>\n"
                                    "    </interface>\n"));
}

TEST(RewriteDomain, NetworksAreRenamed) {
  const std::string xml = domain_with(
      "<interface type='network'><source network='a' portid='p' bridge='virbr0'/></interface>"
      "<interface type='bridge'><source bridge='br0'/></interface>"
      "<interface type='direct'><source dev='eno1' mode='bridge'/></interface>"
      "<interface type='network'><source network='other' bridge='br0'/></interface>"
      "<interface type='user'/>");
  const auto result = rewritten(
      xml, {.networks = {{"a", "b"}, {"b", "a"}, {"br0", "br9"}, {"eno1", "eth0"}, {"virbr0", "x"}}});
  EXPECT_EQ(result.xml,
            domain_with("<interface type='network'><source network='b'/></interface>"
                        "<interface type='bridge'><source bridge='br9'/></interface>"
                        "<interface type='direct'><source dev='eth0' mode='bridge'/></interface>"
                        "<interface type='network'><source network='other' bridge='br0'/></interface>"
                        "<interface type='user'/>"));
  EXPECT_EQ(result.warnings, (Texts{"network b: no interface of the machine uses it",
                                    "network virbr0: no interface of the machine uses it"}));
}

TEST(RewriteDomain, NameEmulatorMachineAndCpu) {
  const std::string xml = domain_file("migratable.xml");
  const auto result = rewritten(xml, {.keep_disks = {"vda", "sda"},
                                      .name = "web2",
                                      .emulator = "/opt/qemu",
                                      .machine = "pc-q35-8.2",
                                      .cpu_xml = "<cpu mode='host-model'/>"});
  EXPECT_EQ(xml_diff(xml, result.xml),
            "--- before\n+++ after\n"
            "@@ -1,5 +1,5 @@\n"
            " <domain type='qemu'>\n"
            "-  <name>web1</name>\n"
            "+  <name>web2</name>\n"
            "   <uuid>3f0a4c1e-8f0d-4b7e-9a55-0d6a7a2f9b11</uuid>\n"
            "   <memory unit='KiB'>262144</memory>\n"
            "   <currentMemory unit='KiB'>262144</currentMemory>\n"
            "@@ -8,21 +8,19 @@\n"
            "     <partition>/machine</partition>\n"
            "   </resource>\n"
            "   <os>\n"
            "-    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n"
            "+    <type arch='x86_64' machine='pc-q35-8.2'>hvm</type>\n"
            "     <boot dev='hd'/>\n"
            "   </os>\n"
            "   <features>\n"
            "     <acpi/>\n"
            "   </features>\n"
            "-  <cpu mode='custom' match='exact' check='none'>\n"
            "-    <model fallback='forbid'>qemu64</model>\n"
            "-  </cpu>\n"
            "+  <cpu mode='host-model'/>\n"
            "   <clock offset='utc'/>\n"
            "   <on_poweroff>destroy</on_poweroff>\n"
            "   <on_reboot>restart</on_reboot>\n"
            "   <on_crash>destroy</on_crash>\n"
            "   <devices>\n"
            "-    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
            "+    <emulator>/opt/qemu</emulator>\n"
            "     <disk type='file' device='disk'>\n"
            "       <driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap' queues='2'/>\n"
            "       <source file='/var/lib/libvirt/images/vda.qcow2'/>\n");
  EXPECT_EQ(result.warnings, Texts{});
}

TEST(RewriteDomain, CpuOfADomainWithoutOne) {
  const auto result = rewritten(domain_with(""), {.cpu_xml = "<cpu mode='maximum'/>"});
  EXPECT_EQ(result.xml,
            "<domain type='kvm'>\n  <name>t</name>\n  <cpu mode='maximum'/>\n  <devices>\n  "
            "</devices>\n</domain>\n");
}

TEST(RewriteDomain, HostCpuIsWarnedOf) {
  DomainRewrite changes;
  for (const auto& disk : read(domain_file("devices.xml")).disks) changes.keep_disks.push_back(disk.target);
  EXPECT_EQ(rewritten(domain_file("devices.xml"), changes).warnings,
            Texts{"cpu: the guest sees the host's own CPU; a live move needs the same model there"});
}

TEST(RewriteDomain, PlacementFitsTheDestination) {
  const std::string xml =
      "<domain>\n  <name>t</name>\n  <vcpu cpuset='0-7,^3'>4</vcpu>\n  <cputune>\n    <shares>9</shares>\n"
      "    <vcpupin vcpu='0' cpuset='4'/>\n    <vcpupin vcpu='1' cpuset='1'/>\n    <cachetune vcpus='0'/>\n"
      "  </cputune>\n  <devices/>\n</domain>\n";
  EXPECT_EQ(rewritten(xml, {.host_cpus = 8}).xml, xml);
  EXPECT_EQ(rewritten(xml, {}).xml, xml);
  const auto result = rewritten(xml, {.host_cpus = 4});
  EXPECT_EQ(result.xml,
            "<domain>\n  <name>t</name>\n  <vcpu>4</vcpu>\n  <cputune>\n    <shares>9</shares>\n"
            "    <vcpupin vcpu='1' cpuset='1'/>\n  </cputune>\n  <devices/>\n</domain>\n");
  EXPECT_EQ(result.warnings.size(), 3u);
}

TEST(RewriteDomain, PlacementThatVanishesLeavesNothing) {
  const auto result = rewritten(
      "<domain><name>t</name><cputune><vcpupin cpuset='9'/><cachetune/></cputune><devices/></domain>",
      {.host_cpus = 1});
  EXPECT_EQ(result.xml, "<domain><name>t</name><cputune/><devices/></domain>");
}

struct BadChange {
  std::string name;
  DomainRewrite changes;
};
class BadChangeTable : public testing::TestWithParam<BadChange> {};
TEST_P(BadChangeTable, IsRefused) {
  const auto result = rewrite_domain(domain_with(""), GetParam().changes);
  ASSERT_FALSE(result) << result->xml;
  EXPECT_NE(result.error().kind(), ErrorKind::internal);
}
INSTANTIATE_TEST_SUITE_P(Values, BadChangeTable,
                         testing::Values(BadChange{"name_with_a_slash", {.name = "a/b"}},
                                         BadChange{"name_with_a_newline", {.name = "a\nb"}},
                                         BadChange{"no_emulator_to_replace", {.emulator = "/x"}},
                                         BadChange{"relative_emulator", {.emulator = "x"}},
                                         BadChange{"no_os", {.machine = "q35"}},
                                         BadChange{"network", {.networks = {{"a", ""}}}},
                                         BadChange{"cpu_is_no_xml", {.cpu_xml = "host-model"}},
                                         BadChange{"cpu_is_something_else", {.cpu_xml = "<disk/>"}}),
                         test::row_name<BadChange>);

// The schema that libvirt installs is the judge of every kind of source that is written.
TEST(RewriteDomain, SchemaOfLibvirtAccepts) {
  const auto rbd = ImageUri::parse("rbd://p/ns/i@s?conf=/etc/c&id=vm&mon_host=a:1,b");
  const auto iscsi = ImageUri::parse("iscsi://h/iqn.2026-01.org.example:t/1");
  const auto nfs = ImageUri::parse("nfs://h/v/a.raw?uid=1&gid=2");
  const std::string secret = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f";
  const auto result = rewritten(
      domain_file("devices.xml"),
      {.disks = {{"vda", NbdDiskSource{.host = "h", .export_name = "x", .tls = true, .tls_hostname = "y"}},
                 {"vdb", NbdDiskSource{.socket = "/run/s", .export_name = "x"}},
                 {"vdc", UriDiskSource{*rbd, "raw", secret}},
                 {"vdd", UriDiskSource{*nfs, "raw", ""}},
                 {"sda", UriDiskSource{*iscsi, "raw", ""}},
                 {"sdb", FileDiskSource{"/srv/b.qcow2", "qcow2"}, "none"},
                 {"sdc", BlockDiskSource{"/dev/c", "raw"}}},
       .networks = {{"prod", "test"}},
       .cpu_xml = "<cpu mode='host-model'/>",
       .is_persistent_form = true,
       .host_cpus = 2});
  const test::TemporaryFolder folder;
  const std::string path = folder / "domain.xml";
  std::ofstream(path) << result.xml;
  const auto checked = test::run_program({"virt-xml-validate", path, "domain"});
  EXPECT_EQ(checked.exit_code, 0) << checked.err << result.xml;
}

}  // namespace
}  // namespace diskferry
