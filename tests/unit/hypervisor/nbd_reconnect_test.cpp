// A disk that goes over to an export: the copy's definition, what libvirt shows of it, and the commands that
// have QEMU wait for a server that is away.
#include "gateway/hypervisor/nbd_reconnect.hpp"

#include "gateway/hypervisor/domain_xml.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

TEST(BlockCopyXml, NamesTheExport) {
  const auto xml = block_copy_xml("vda", {.socket = "/run/d/nbd.sock", .export_name = "web:vda"}, 300);
  ASSERT_TRUE(xml);
  for (const char* part : {"<disk type='network' device='disk'>", "<driver name='qemu' type='raw'",
                           "protocol='nbd' name='web:vda'", "transport='unix' socket='/run/d/nbd.sock'",
                           "<reconnect delay='300'", "<target dev='vda'"})
    EXPECT_TRUE(xml->contains(part)) << part << " in " << *xml;
  EXPECT_FALSE(block_copy_xml("vda\n", {.socket = "/run/d/nbd.sock", .export_name = "web:vda"}, 0));
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
