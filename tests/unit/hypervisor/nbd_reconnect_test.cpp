// A disk that goes over to an export: the copy's definition, what libvirt shows of it, and the commands that
// have QEMU wait for a server that is away.
#include "gateway/hypervisor/nbd_reconnect.hpp"

#include "gateway/hypervisor/domain_xml.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

TEST(BlockCopyXml, NamesTheExport) {
  const NbdDiskSource there{.socket = "/run/d/nbd.sock", .export_name = "web:vda"};
  const auto xml = block_copy_xml({.target = "vda", .source = there}, 300);
  ASSERT_TRUE(xml);
  for (const char* part : {"<disk type='network' device='disk'>", "<driver name='qemu' type='raw'",
                           "protocol='nbd' name='web:vda'", "transport='unix' socket='/run/d/nbd.sock'",
                           "<reconnect delay='300'", "<target dev='vda'"})
    EXPECT_TRUE(xml->contains(part)) << part << " in " << *xml;
  EXPECT_FALSE(block_copy_xml({.target = "vda\n", .source = there}, 0));
  EXPECT_EQ(source_name(there).value(), "nbd+unix:///web:vda?socket=/run/d/nbd.sock");
}

TEST(BlockCopyXml, NamesStorageThatQemuOpens) {
  const auto uri = ImageUri::parse("rbd://vms/web?conf=/etc/ceph/b.conf&id=web");
  const UriDiskSource there{.uri = uri.value(), .format = "raw", .secret_uuid = "some-uuid"};
  const auto xml = block_copy_xml({.target = "vda", .source = there, .slice_bytes = 4096}, 300);
  ASSERT_TRUE(xml) << xml.error().message();
  for (const char* part :
       {"<disk type='network' device='disk'>", "<driver name='qemu' type='raw'",
        "protocol='rbd' name='vms/web'", "<config file='/etc/ceph/b.conf'",
        "<secret type='ceph' uuid='some-uuid'", "<slice type='storage' offset='0' size='4096'"})
    EXPECT_TRUE(xml->contains(part)) << part << " in " << *xml;
  EXPECT_FALSE(xml->contains("reconnect"));
  EXPECT_EQ(source_name(there).value(), "rbd://vms/web?conf=/etc/ceph/b.conf&id=web");
}

TEST(BlockCopyXml, NamesAnImageFile) {
  const FileDiskSource there{.path = "/new/web.qcow2", .format = "qcow2"};
  const auto xml = block_copy_xml({.target = "vda", .source = there}, 300);
  ASSERT_TRUE(xml);
  for (const char* part : {"<disk type='file'", "<driver name='qemu' type='qcow2'", "file='/new/web.qcow2'"})
    EXPECT_TRUE(xml->contains(part)) << part << " in " << *xml;
  EXPECT_EQ(source_name(there).value(), "/new/web.qcow2");
}

/// What libvirt shows of such a disk is what it is looked for by, with the ports that libvirt writes.
TEST(SourceName, IsWhatIsReadBack) {
  for (const char* text : {"iscsi://host/iqn.2026-01.org.example:a/1", "nfs://host/vms/web.raw?uid=0&gid=0",
                           "gluster://host/vms/web.raw", "nbd://host/web"}) {
    const auto source = disk_source(ImageUri::parse(text).value(), "raw", false);
    ASSERT_TRUE(source) << text;
    const auto vm =
        read_domain("<domain><name>web</name><devices>" +
                    block_copy_xml({.target = "vda", .source = *source}, 0).value() + "</devices></domain>");
    ASSERT_TRUE(vm) << vm.error().message();
    EXPECT_EQ(vm->disks.front().source, source_name(*source).value());
  }
}

TEST(ReadDomain, MirrorOfADisk) {
  const auto vm = read_domain(R"(<domain><name>web</name><devices><disk type='file' device='disk'>
    <driver name='qemu' type='qcow2' discard='unmap'/><source file='/images/web.qcow2' index='3'/>
    <mirror type='network' job='copy' ready='yes'><format type='raw'/>
      <source protocol='nbd' name='web:vda' index='5'><host transport='unix' socket='/run/d/nbd.sock'/></source>
    </mirror><target dev='vda'/></disk></devices></domain>)");
  ASSERT_TRUE(vm) << vm.error().message();
  const VmDisk& disk = vm->disks.front();
  EXPECT_EQ(disk.node_index, 3u);
  EXPECT_TRUE(disk.discards);
  ASSERT_TRUE(disk.mirror);
  EXPECT_EQ(disk.mirror->source, "nbd+unix:///web:vda?socket=/run/d/nbd.sock");
  EXPECT_EQ(disk.mirror->node_index, 5u);
  EXPECT_TRUE(disk.mirror->is_ready);
}

constexpr auto nodes = R"({"return":[
  {"node-name":"libvirt-5-storage","drv":"nbd","ro":false,"cache":{"direct":true,"no-flush":false}},
  {"node-name":"libvirt-5-format","drv":"raw","ro":false,"detect_zeroes":"unmap",
   "cache":{"writeback":true,"direct":true,"no-flush":false}}],"id":"libvirt-9"})";

TEST(NbdReconnect, NodeIsOpenedAnewAsItWas) {
  const auto node = find_qemu_node(nodes, format_node_name(5));
  ASSERT_TRUE(node) << node.error().message();
  EXPECT_TRUE(node->is_direct);
  EXPECT_FALSE(node->ignores_flushes);
  const NbdReconnect wanted{.node_index = 5,
                            .socket = "/run/d/nbd.sock",
                            .export_name = "web:vda",
                            .delay_s = 300,
                            .discards = true};
  EXPECT_EQ(
      add_node_command(wanted, *node),
      R"({"execute":"blockdev-add","arguments":{"read-only":false,"discard":"unmap","detect-zeroes":"unmap",)"
      R"("cache":{"direct":true,"no-flush":false},"driver":"nbd","node-name":"diskferry-5",)"
      R"("server":{"type":"unix","path":"/run/d/nbd.sock"},"export":"web:vda","reconnect-delay":300}})");
  EXPECT_EQ(reopen_command(wanted, *node),
            R"({"execute":"blockdev-reopen","arguments":{"options":[{"read-only":false,"discard":"unmap",)"
            R"("detect-zeroes":"unmap","cache":{"direct":true,"no-flush":false},"driver":"raw",)"
            R"("node-name":"libvirt-5-format","file":"diskferry-5"}]}})");
  EXPECT_EQ(end_connection_command(5),
            R"({"execute":"blockdev-del","arguments":{"node-name":"libvirt-5-storage"}})");
  EXPECT_EQ(
      take_name_command(5, *node, true),
      R"({"execute":"blockdev-add","arguments":{"read-only":false,"discard":"unmap","detect-zeroes":"unmap",)"
      R"("cache":{"direct":true,"no-flush":false},"driver":"raw","node-name":"libvirt-5-storage",)"
      R"("file":"diskferry-5"}})");
  EXPECT_EQ(find_qemu_node(nodes, connection_node_name(5))->driver, "nbd");
}

TEST(NbdReconnect, AnswersThatSayNothing) {
  EXPECT_EQ(find_qemu_node(nodes, "libvirt-6-format").error().kind(), ErrorKind::not_found);
  for (const char* answer :
       {"", "{}", R"({"return":{}})", R"({"return":[{"node-name":"libvirt-5-format"}]})"})
    EXPECT_EQ(find_qemu_node(answer, "libvirt-5-format").error().kind(), ErrorKind::protocol) << answer;
  EXPECT_EQ(find_qemu_node(R"({"error":{"class":"CommandNotFound","desc":"no"}})", "x").error().kind(),
            ErrorKind::unsupported);
}

}  // namespace
}  // namespace diskferry
