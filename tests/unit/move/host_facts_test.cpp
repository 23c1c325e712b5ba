// What is read from libvirt's capabilities, and what hostile ones do.
#include "gateway/move/host_facts.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

constexpr std::string_view capabilities = R"(<capabilities>
  <host>
    <uuid>4c4c4544-0000-1000-8000-000000000001</uuid>
    <secmodel><model>apparmor</model><doi>0</doi></secmodel>
    <secmodel><model>dac</model><doi>0</doi>
      <baselabel type='kvm'>+64055:+64055</baselabel><baselabel type='qemu'>+64055:+64055</baselabel>
    </secmodel>
  </host>
  <guest>
    <os_type>hvm</os_type>
    <arch name='x86_64'>
      <wordsize>64</wordsize>
      <emulator>/usr/bin/qemu-system-x86_64</emulator>
      <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
      <machine maxCpus='255'>pc-i440fx-7.2</machine>
      <domain type='qemu'/>
      <domain type='kvm'>
        <emulator>/usr/bin/kvm</emulator>
        <machine maxCpus='1'>microvm</machine>
      </domain>
    </arch>
  </guest>
  <guest><os_type>hvm</os_type><arch name='s390x'><emulator>/usr/bin/qemu-system-s390x</emulator>
    <machine>s390-ccw-virtio-7.2</machine><domain type='qemu'/></arch></guest>
</capabilities>)";

TEST(HostFacts, AreReadFromCapabilities) {
  HostFacts host;
  ASSERT_TRUE(read_capabilities(capabilities, host));
  EXPECT_EQ(host.uuid, "4c4c4544-0000-1000-8000-000000000001");
  EXPECT_EQ(host.security_models, std::vector<std::string>{"apparmor"});
  EXPECT_EQ(host.hypervisor_user, "+64055:+64055");
  ASSERT_EQ(host.guests.size(), 3u);
  EXPECT_EQ(host.guests[0].emulator, "/usr/bin/qemu-system-x86_64");
  EXPECT_EQ(host.guests[0].machines.at("pc-q35-7.2"), 288u);
  EXPECT_EQ(host.guests[0].machines.at("q35"), 288u);
  EXPECT_EQ(host.guests[1].domain_type, "kvm");
  EXPECT_EQ(host.guests[1].emulator, "/usr/bin/kvm");
  EXPECT_EQ(host.guests[1].machines.at("microvm"), 1u);
  EXPECT_EQ(host.guests[2].machines.at("s390-ccw-virtio-7.2"), 0u);
}

TEST(HostFacts, FirmwaresAreReadFromDomainCapabilities) {
  HostFacts host;
  ASSERT_TRUE(read_domain_capabilities(
      "<domainCapabilities><os supported='yes'><enum name='firmware'><value>efi</value></enum>"
      "<loader supported='yes'><value>/a.fd</value><value>/b.fd</value>"
      "<enum name='type'><value>rom</value></enum></loader></os></domainCapabilities>",
      host));
  EXPECT_EQ(host.firmwares, (std::vector<std::string>{"/a.fd", "/b.fd"}));
}

TEST(HostFacts, RefuseWhatIsNoCapabilities) {
  HostFacts host;
  for (const std::string_view text : {"", "<capabilities>", "hello", "<domain/>"}) {
    EXPECT_EQ(read_capabilities(text, host).error().kind(), ErrorKind::corrupt) << text;
    EXPECT_EQ(read_domain_capabilities(text, host).error().kind(), ErrorKind::corrupt) << text;
  }
}

TEST(HostFacts, SupportPrefersTheEmulatorThenTheMachineType) {
  const auto guest = [](std::string emulator, std::string machine) {
    return GuestSupport{
        .architecture = "x86_64", .domain_type = "kvm", .emulator = emulator, .machines = {{machine, 1}}};
  };
  const HostFacts host{.guests = {guest("/old", "pc-1"), guest("/new", "pc-2")}};
  VmDescription machine{.domain_type = "kvm", .machine = "pc-2", .architecture = "x86_64"};
  ASSERT_NE(support_for(machine, host), nullptr);
  EXPECT_EQ(support_for(machine, host)->emulator, "/new");
  machine.emulator = "/old";
  EXPECT_EQ(support_for(machine, host)->emulator, "/old");
  machine.architecture = "arm";
  EXPECT_EQ(support_for(machine, host), nullptr);
}

TEST(HostFacts, VersionsAsPeopleWriteThem) {
  EXPECT_EQ(version_text(7002022), "7.2.22");
  EXPECT_EQ(version_text(9000000), "9.0.0");
}

}  // namespace
}  // namespace diskferry
