#include "gateway/hypervisor/xml_tree.hpp"
#include "tests/unit/hypervisor/domains.hpp"

#include <fmt/format.h>

namespace diskferry {
namespace {
using test::disk_of;
using test::domain_file;
using test::domain_with;
using test::read;
using Texts = std::vector<std::string>;

TEST(ReadDomain, RunningMachine) {
  const auto vm = read(domain_file("running.xml"));
  EXPECT_EQ(vm.name, "web1");
  EXPECT_EQ(vm.uuid, "3f0a4c1e-8f0d-4b7e-9a55-0d6a7a2f9b11");
  EXPECT_EQ(vm.domain_type, "qemu");
  EXPECT_EQ(vm.machine, "pc-q35-7.2");
  EXPECT_EQ(vm.architecture, "x86_64");
  EXPECT_EQ(vm.emulator, "/usr/bin/qemu-system-x86_64");
  EXPECT_EQ(vm.memory_bytes, 256u << 20);
  EXPECT_EQ(vm.vcpus, 2u);
  EXPECT_EQ(vm.cpu_mode, "custom");
  EXPECT_EQ(vm.cpu_model, "qemu64");
  EXPECT_TRUE(vm.cpu_xml.starts_with("<cpu mode='custom' match='exact' check='full'>")) << vm.cpu_xml;
  EXPECT_TRUE(vm.cpu_xml.ends_with("</cpu>")) << vm.cpu_xml;
  ASSERT_EQ(vm.disks.size(), 3u);
  const VmDisk& root = vm.disks[0];
  EXPECT_EQ(root.target, "vda");
  EXPECT_EQ(root.alias, "virtio-disk0");
  EXPECT_EQ(drive_export_name(root), "drive-virtio-disk0");
  EXPECT_EQ(root.device, "disk");
  EXPECT_EQ(root.bus, "virtio");
  EXPECT_EQ(root.source_type, "file");
  EXPECT_EQ(root.source, "/var/lib/libvirt/images/vda.qcow2");
  EXPECT_EQ(root.source_text, root.source);
  EXPECT_EQ(root.format, "qcow2");
  EXPECT_EQ(root.cache, "none");
  EXPECT_EQ(root.serial, "ROOT-01");
  EXPECT_EQ(root.backing, (Texts{"/var/lib/libvirt/images/mid.qcow2", "/var/lib/libvirt/images/base.raw"}));
  EXPECT_FALSE(root.is_shareable);
  EXPECT_TRUE(vm.disks[1].is_shareable);
  EXPECT_TRUE(vm.disks[1].backing.empty());
  EXPECT_EQ(vm.disks[2].device, "cdrom");
  EXPECT_EQ(vm.disks[2].source_type, "");
  EXPECT_EQ(vm.disks[2].source, "");
  EXPECT_TRUE(vm.disks[2].is_read_only);
  EXPECT_FALSE(vm.has_emulated_tpm);
  EXPECT_FALSE(vm.has_shared_memory_device);
  EXPECT_FALSE(vm.has_qemu_arguments);
}

// libvirt leaves the aliases out of the form that is sent to a destination: who needs an export's name reads
// the running one.
TEST(ReadDomain, MigratableFormHasNoAliases) {
  const auto vm = read(domain_file("migratable.xml"));
  EXPECT_EQ(disk_of(vm, "vda").alias, "");
  EXPECT_EQ(drive_export_name(disk_of(vm, "vda")), "");
}

TEST(ReadDomain, WhatKeepsAMachineAtItsHost) {
  const auto vm = read(domain_file("devices.xml"));
  EXPECT_EQ(vm.memory_bytes, 8ull << 30);
  EXPECT_EQ(vm.cpu_mode, "host-passthrough");
  EXPECT_EQ(vm.loader, "/usr/share/OVMF/OVMF_CODE_4M.ms.fd");
  EXPECT_EQ(vm.nvram, "/var/lib/libvirt/qemu/nvram/db1_VARS.fd");
  EXPECT_TRUE(vm.has_emulated_tpm);
  EXPECT_TRUE(vm.has_shared_memory_device);
  EXPECT_EQ(vm.filesystems, Texts{"share"});
  EXPECT_EQ(vm.host_devices,
            (Texts{"pci 0000:0a:00.0", "usb 0x0529:0x0001", "mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
                   "network interface pci 0000:03:10.1"}));
  Texts interfaces;
  for (const auto& one : vm.interfaces) interfaces.push_back(one.type + " " + one.source + " " + one.mac);
  EXPECT_EQ(interfaces,
            (Texts{"network prod 52:54:00:aa:00:01", "bridge br0 52:54:00:aa:00:02",
                   "direct eno1 52:54:00:aa:00:03", "vhostuser /run/openvswitch/vhost1 52:54:00:aa:00:04",
                   "hostdev  52:54:00:aa:00:05"}));
}

TEST(ReadDomain, ADiskThatIsAPartOfItsStorage) {
  const auto disk_with = [](const std::string& slices) {
    return domain_with("<disk type='block'><driver name='qemu' type='raw'/><source dev='/dev/lun'>" + slices +
                       "</source><target dev='vda' bus='virtio'/></disk>");
  };
  EXPECT_FALSE(disk_of(read(disk_with("")), "vda").slice);
  const auto of_format = "<slices><slice type='format' offset='0' size='7'/>";
  const auto vm =
      read(disk_with(std::string(of_format) + "<slice type='storage' offset='512' size='4096'/></slices>"));
  EXPECT_EQ(disk_of(vm, "vda").slice, (Range{512, 4096}));
  for (const char* bad :
       {"offset='0'", "offset='0' size='0'", "offset='1' size='18446744073709551615'", "offset='a' size='1'"})
    EXPECT_FALSE(read_domain(disk_with(fmt::format("<slices><slice type='storage' {}/></slices>", bad))))
        << bad;
}

struct DiskRow {
  std::string name;
  std::string file;
  std::string target;
  std::string source_type;
  std::string source;
  std::string text;
};
class DiskTable : public testing::TestWithParam<DiskRow> {};

TEST_P(DiskTable, NamesItsSource) {
  const auto vm = read(domain_file(GetParam().file));
  const VmDisk& disk = disk_of(vm, GetParam().target);
  EXPECT_EQ(disk.source_type, GetParam().source_type);
  EXPECT_EQ(disk.source, GetParam().source);
  EXPECT_EQ(disk.source_text, GetParam().text.empty() ? GetParam().source : GetParam().text);
}

// Whatever is a URI must be one that the rest of the program reads in the same way.
TEST_P(DiskTable, UriIsReadAgain) {
  const std::string& source = GetParam().source;
  if (!source.contains("://")) return;
  const auto uri = ImageUri::parse(source);
  ASSERT_TRUE(uri) << uri.error().message();
  const auto again = ImageUri::parse(uri->to_uri_with_secrets());
  ASSERT_TRUE(again);
  EXPECT_TRUE(*again == *uri);
}

INSTANTIATE_TEST_SUITE_P(
    Sources, DiskTable,
    testing::Values(
        DiskRow{"block", "devices.xml", "vda", "block", "/dev/vg0/db1", ""},
        DiskRow{"lun", "devices.xml", "sda", "block", "/dev/disk/by-id/scsi-360000", ""},
        DiskRow{"file_with_a_blank", "devices.xml", "sdc", "file", "/srv/iso/debian 12.iso", ""},
        DiskRow{"no_medium", "devices.xml", "fda", "", "", ""},
        DiskRow{"volume", "devices.xml", "vdc", "volume", "", "volume scratch.img of pool images"},
        DiskRow{"nvme", "devices.xml", "vdd", "nvme", "", "NVMe 0000:01:00.0 namespace 1"},
        DiskRow{"vhostuser", "devices.xml", "vde", "vhostuser", "", "vhost-user socket /run/spdk/vhost.0"},
        DiskRow{"folder", "devices.xml", "fdb", "dir", "", "folder /srv/fat"},
        DiskRow{"nbd", "network_disks.xml", "vda", "network", "nbd://10.77.0.2:10809/g1", ""},
        DiskRow{"nbd_tls", "network_disks.xml", "vdb", "network",
                "nbds://[2001:db8::7]:10810/vm/disk%201?tls-hostname=store.example", ""},
        DiskRow{"nbd_unix", "network_disks.xml", "vdc", "network", "nbd+unix:///exp?socket=/run/gw/nbd.sock",
                ""},
        DiskRow{"rbd", "network_disks.xml", "vdd", "network",
                "rbd://pool/image@s1?conf=/etc/ceph/"
                "a.conf&id=vmuser&mon_host=mon1.example:6789,mon2.example:6789",
                ""},
        DiskRow{"rbd_namespace", "network_disks.xml", "vde", "network", "rbd://pool/ns/image2", ""},
        DiskRow{"iscsi", "network_disks.xml", "vdf", "network",
                "iscsi://myuser@example.com:3260/iqn.2013-07.com.example:iscsi-nopool/2", ""},
        DiskRow{"gluster", "network_disks.xml", "vdg", "network",
                "gluster://gl.example:24007/vol1/images/a.qcow2", ""},
        DiskRow{"gluster_unix", "network_disks.xml", "vdh", "network",
                "gluster+unix:///vol1/b.qcow2?socket=/run/glusterd.sock", ""},
        DiskRow{"https", "network_disks.xml", "hda", "network",
                "https://mirror.example:443/iso/debian.iso?token=a&b=c", ""},
        DiskRow{"nfs", "network_disks.xml", "vdi", "network",
                "nfs://nfs.example/export/vm/disk.raw?uid=1000&gid=100", ""}),
    test::row_name<DiskRow>);

TEST(ReadDomain, DetailsOfDisks) {
  const auto vm = read(domain_file("devices.xml"));
  EXPECT_EQ(disk_of(vm, "sda").device, "lun");
  EXPECT_EQ(disk_of(vm, "sdc").startup_policy, "optional");
  EXPECT_TRUE(disk_of(vm, "sdb").is_encrypted);
  EXPECT_FALSE(disk_of(vm, "vda").is_encrypted);
  EXPECT_EQ(disk_of(vm, "sdb").backing, (Texts{"/srv/img/mid.qcow2", "/dev/vg0/base"}));
  EXPECT_EQ(disk_of(vm, "vdb").logical_block_bytes, 4096u);
  EXPECT_EQ(disk_of(vm, "vda").logical_block_bytes, 0u);
}

TEST(ReadDomain, PathThatIsNoneNamesNothing) {
  const auto vm =
      read(domain_with("<disk type='file'><source file='nbd://evil/x'/><target dev='vda'/></disk>"));
  EXPECT_EQ(vm.disks[0].source, "");
  EXPECT_EQ(vm.disks[0].source_text, "file nbd://evil/x, which is no absolute path");
}

TEST(ReadDomain, BlockJobAndFlags) {
  const auto vm = read(domain_with(
      "<disk type='file' device='disk'><source file='/a'/><mirror type='file' job='copy'/><target dev='vda'/>"
      "<transient/><readonly/></disk>"));
  EXPECT_TRUE(vm.disks[0].has_block_job);
  EXPECT_TRUE(vm.disks[0].is_transient);
  EXPECT_TRUE(vm.disks[0].is_read_only);
}

struct MemoryRow {
  std::string name;
  std::string element;
  std::uint64_t bytes;
};
class MemoryTable : public testing::TestWithParam<MemoryRow> {};
TEST_P(MemoryTable, IsInBytes) {
  const auto vm = read_domain("<domain><name>t</name>" + GetParam().element + "</domain>");
  ASSERT_EQ(vm.has_value(), GetParam().bytes != 0);
  if (vm) EXPECT_EQ(vm->memory_bytes, GetParam().bytes);
  if (!vm) EXPECT_EQ(vm.error().kind(), ErrorKind::corrupt);
}
INSTANTIATE_TEST_SUITE_P(
    Units, MemoryTable,
    testing::Values(MemoryRow{"none_is_kib", "<memory>1024</memory>", 1u << 20},
                    MemoryRow{"bytes", "<memory unit='bytes'>4096</memory>", 4096},
                    MemoryRow{"mb", "<memory unit='MB'>3</memory>", 3000000},
                    MemoryRow{"m", "<memory unit='m'>3</memory>", 3u << 20},
                    MemoryRow{"blanks", "<memory unit='GiB'>\n 2\n</memory>", 2ull << 30},
                    MemoryRow{"tib", "<memory unit='TiB'>1</memory>", 1ull << 40},
                    MemoryRow{"overflow", "<memory unit='TiB'>18446744073709551615</memory>", 0},
                    MemoryRow{"no_unit", "<memory unit='furlongs'>1</memory>", 0},
                    MemoryRow{"negative", "<memory>-1</memory>", 0}, MemoryRow{"empty", "<memory/>", 0}),
    test::row_name<MemoryRow>);

struct BadRow {
  std::string name;
  std::string xml;
  ErrorKind kind;
  std::string says;
};
class BadTable : public testing::TestWithParam<BadRow> {};
TEST_P(BadTable, IsRefused) {
  const auto vm = read_domain(GetParam().xml);
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().kind(), GetParam().kind);
  EXPECT_TRUE(vm.error().message().contains(GetParam().says)) << vm.error().message();
  const auto rewritten = rewrite_domain(GetParam().xml, {});
  ASSERT_FALSE(rewritten);
  EXPECT_EQ(rewritten.error().kind(), GetParam().kind);
}

std::string nested(std::size_t depth) {
  std::string xml = "<domain><name>t</name>";
  for (std::size_t i = 0; i < depth; ++i) xml += "<a>";
  for (std::size_t i = 0; i < depth; ++i) xml += "</a>";
  return xml + "</domain>";
}

INSTANTIATE_TEST_SUITE_P(
    Hostile, BadTable,
    testing::Values(
        BadRow{"empty", "", ErrorKind::corrupt, "0 root elements"},
        BadRow{"cut", "<domain><name>t</na", ErrorKind::corrupt, "not well-formed"},
        BadRow{"text", "hello", ErrorKind::corrupt, "outside of the root"},
        BadRow{"two_roots", "<domain><name>t</name></domain><domain/>", ErrorKind::corrupt,
               "2 root elements"},
        BadRow{"other_root", "<network><name>t</name></network>", ErrorKind::corrupt, "not <domain>"},
        BadRow{"no_name", "<domain><name> </name></domain>", ErrorKind::corrupt, "no <name>"},
        BadRow{"entities",
               "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
               ErrorKind::unsupported, "document type"},
        BadRow{"nul", std::string("<domain>\0</domain>", 18), ErrorKind::corrupt, "UTF-8"},
        BadRow{"latin1", "<domain><name>\xe4</name></domain>", ErrorKind::corrupt, "UTF-8"},
        BadRow{"surrogate", "<domain><name>&#xD800;</name></domain>", ErrorKind::corrupt, "no character"},
        BadRow{"beyond_unicode", "<domain><name>t</name><a b='&#x110000;'/></domain>", ErrorKind::corrupt,
               "no character"},
        BadRow{"deep", nested(5000), ErrorKind::too_large, "nested"},
        BadRow{"large", std::string(domain_xml_bytes_max + 1, ' '), ErrorKind::too_large, "limit"},
        BadRow{"no_target", domain_with("<disk/>"), ErrorKind::corrupt, "no target"},
        BadRow{"same_target", domain_with("<disk><target dev='a'/></disk><disk><target dev='a'/></disk>"),
               ErrorKind::corrupt, "two disks"},
        BadRow{"two_sources", domain_with("<disk><source/><source/><target dev='a'/></disk>"),
               ErrorKind::corrupt, "more than one <source>"},
        BadRow{"two_lists_of_devices", "<domain><name>t</name><devices/><devices/></domain>",
               ErrorKind::corrupt, "more than one <devices>"},
        BadRow{"vcpus", "<domain><name>t</name><vcpu>many</vcpu></domain>", ErrorKind::corrupt,
               "virtual CPUs"},
        BadRow{"block_size",
               domain_with("<disk><target dev='a'/><blockio logical_block_size='99999999999'/></disk>"),
               ErrorKind::corrupt, "block size"}),
    test::row_name<BadRow>);

TEST(ReadDomain, ErrorsShowNoControlCharacters) {
  const auto vm = read_domain(
      domain_with("<disk><target dev='a&#27;[2J'/></disk><disk><target dev='a&#27;[2J'/></disk>"));
  ASSERT_FALSE(vm);
  EXPECT_FALSE(vm.error().message().contains('\x1b')) << vm.error().message();
}

TEST(ReadDomain, StatesHaveNames) {
  EXPECT_EQ(to_string(VmState::shut_off), "shut_off");
  EXPECT_EQ(to_string(VmState::absent), "absent");
}

}  // namespace
}  // namespace diskferry
