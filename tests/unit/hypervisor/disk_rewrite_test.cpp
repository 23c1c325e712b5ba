// One disk at a time: what its element becomes, and what is said about it.
#include "tests/unit/hypervisor/domains.hpp"

namespace diskferry {
namespace {
using test::domain_with;
using Texts = std::vector<std::string>;

ImageUri uri(const std::string& text) {
  auto parsed = ImageUri::parse(text);
  if (!parsed) throw std::runtime_error(parsed.error().message());
  return *std::move(parsed);
}

// What libvirt writes for a disk of a running machine, with everything that cannot go along.
const std::string full_disk =
    "    <disk type='file' device='disk' model='virtio-transitional' snapshot='external'>\n"
    "      <driver name='qemu' type='qcow2' cache='none' error_policy='stop' io='native' discard='unmap' "
    "iothread='1'"
    " detect_zeroes='unmap' queues='4'>\n"
    "        <metadata_cache>\n"
    "          <max_size unit='bytes'>1048576</max_size>\n"
    "        </metadata_cache>\n"
    "      </driver>\n"
    "      <auth username='u'>\n"
    "        <secret type='iscsi' usage='x'/>\n"
    "      </auth>\n"
    "      <source file='/a.qcow2' startupPolicy='optional' index='3'>\n"
    "        <seclabel model='dac' relabel='no'/>\n"
    "        <encryption format='luks'/>\n"
    "        <reservations managed='yes'/>\n"
    "        <slices>\n"
    "          <slice type='storage' offset='0' size='4096'/>\n"
    "        </slices>\n"
    "      </source>\n"
    "      <backingStore type='file' index='4'>\n"
    "        <format type='raw'/>\n"
    "        <source file='/b.raw'/>\n"
    "        <backingStore/>\n"
    "      </backingStore>\n"
    "      <mirror type='file' job='copy'>\n"
    "        <source file='/c.raw'/>\n"
    "      </mirror>\n"
    "      <target dev='vda' bus='virtio'/>\n"
    "      <iotune>\n"
    "        <total_iops_sec>500</total_iops_sec>\n"
    "      </iotune>\n"
    "      <serial>S1</serial>\n"
    "      <alias name='virtio-disk0'/>\n"
    "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n"
    "    </disk>\n";

TEST(RewriteDisk, KeepsTheSlotAndLeavesTheHostBehind) {
  const auto rewritten = rewrite_domain(
      domain_with(full_disk), {.disks = {{.target = "vda",
                                          .source = NbdDiskSource{.host = "gw.example",
                                                                  .port = 10810,
                                                                  .export_name = "web1/vda",
                                                                  .tls = true,
                                                                  .tls_hostname = "store.example"}}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_EQ(
      rewritten->xml,
      domain_with("    <disk type='network' device='disk' model='virtio-transitional' snapshot='external'>\n"
                  "      <driver name='qemu' type='raw' cache='none' error_policy='stop' io='native'"
                  " discard='unmap' iothread='1' detect_zeroes='unmap' queues='4'/>\n"
                  "      <source protocol='nbd' name='web1/vda' tls='yes' tlsHostname='store.example'>\n"
                  "        <host name='gw.example' port='10810'/>\n"
                  "      </source>\n"
                  "      <target dev='vda' bus='virtio'/>\n"
                  "      <iotune>\n"
                  "        <total_iops_sec>500</total_iops_sec>\n"
                  "      </iotune>\n"
                  "      <serial>S1</serial>\n"
                  "      <alias name='virtio-disk0'/>\n"
                  "      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>\n"
                  "    </disk>\n"));
  EXPECT_EQ(rewritten->warnings,
            (Texts{"vda: the security label of the old source is left behind",
                   "vda: the old source is encrypted by QEMU; the new one will not be",
                   "vda: persistent reservations are left behind",
                   "vda: the old source is a slice of its storage; the new one is used from end to end",
                   "vda: a block job of the old source is left behind",
                   "vda: startupPolicy='optional' is left out, network storage has none",
                   "vda: the size of the qcow2 metadata cache is left out, the new format has none"}));
}

TEST(RewriteDisk, IsThePartOfItsStorageThatItFills) {
  const auto xml = domain_with(full_disk);
  const BlockDiskSource lun{.path = "/dev/lun", .format = "raw"};
  const auto rewritten =
      rewrite_domain(xml, {.disks = {{.target = "vda", .source = lun, .slice_bytes = 1048576}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_TRUE(
      rewritten->xml.contains("      <source dev='/dev/lun' startupPolicy='optional'>\n"
                              "        <slices>\n"
                              "          <slice type='storage' offset='0' size='1048576'/>\n"
                              "        </slices>\n"
                              "      </source>\n"))
      << rewritten->xml;
  EXPECT_FALSE(testing::PrintToString(rewritten->warnings).contains("slice"));
  const BlockDiskSource qcow2{.path = "/dev/lun", .format = "qcow2"};
  EXPECT_FALSE(rewrite_domain(xml, {.disks = {{.target = "vda", .source = qcow2, .slice_bytes = 1048576}}}));
}

struct SourceRow {
  std::string name;
  DiskSource source;
  std::string type;
  std::string format;
  std::string element;
};
class SourceTable : public testing::TestWithParam<SourceRow> {};

TEST_P(SourceTable, IsWritten) {
  const auto xml = domain_with(
      "    <disk type='file' device='disk'>\n"
      "      <driver name='qemu' type='qcow2'/>\n"
      "      <source file='/a'/>\n"
      "      <target dev='vda' bus='virtio'/>\n"
      "    </disk>\n");
  const auto rewritten = rewrite_domain(xml, {.disks = {{.target = "vda", .source = GetParam().source}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_EQ(rewritten->xml, domain_with("    <disk type='" + GetParam().type +
                                        "' device='disk'>\n"
                                        "      <driver name='qemu' type='" +
                                        GetParam().format + "'/>\n" + GetParam().element +
                                        "      <target dev='vda' bus='virtio'/>\n"
                                        "    </disk>\n"));
  EXPECT_EQ(rewritten->warnings, Texts{});
}

INSTANTIATE_TEST_SUITE_P(
    Sources, SourceTable,
    testing::Values(
        SourceRow{"file", FileDiskSource{.path = "/srv/it's <1>.raw", .format = "raw"}, "file", "raw",
                  "      <source file='/srv/it&apos;s &lt;1>.raw'/>\n"},
        SourceRow{"block", BlockDiskSource{.path = "/dev/vg1/a", .format = "qcow2"}, "block", "qcow2",
                  "      <source dev='/dev/vg1/a'/>\n"},
        SourceRow{"nbd", NbdDiskSource{.host = "10.77.0.2", .export_name = "g1"}, "network", "raw",
                  "      <source protocol='nbd' name='g1' tls='no'>\n        <host name='10.77.0.2' "
                  "port='10809'/>\n"
                  "      </source>\n"},
        SourceRow{"nbd_without_a_name", NbdDiskSource{.host = "h"}, "network", "raw",
                  "      <source protocol='nbd' tls='no'>\n        <host name='h' port='10809'/>\n      "
                  "</source>\n"},
        SourceRow{"nbd_unix", NbdDiskSource{.socket = "/run/gw.sock", .export_name = "g1"}, "network", "raw",
                  "      <source protocol='nbd' name='g1' tls='no'>\n"
                  "        <host transport='unix' socket='/run/gw.sock'/>\n      </source>\n"},
        SourceRow{"rbd",
                  UriDiskSource{.uri = uri("rbd://pool/ns/img@s1?conf=/etc/a.conf&id=vm"
                                           "&mon_host=mon1:6789,%5B2001:db8::1%5D:3300,mon3"),
                                .secret_uuid = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"},
                  "network", "raw",
                  "      <source protocol='rbd' name='pool/ns/img'>\n"
                  "        <host name='mon1' port='6789'/>\n"
                  "        <host name='2001:db8::1' port='3300'/>\n"
                  "        <host name='mon3'/>\n"
                  "        <snapshot name='s1'/>\n"
                  "        <config file='/etc/a.conf'/>\n"
                  "        <auth username='vm'>\n"
                  "          <secret type='ceph' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/>\n"
                  "        </auth>\n"
                  "      </source>\n"},
        SourceRow{"iscsi", UriDiskSource{.uri = uri("iscsi://[::1]:3261/iqn.2026-01.x:t/1"), .format = "raw"},
                  "network", "raw",
                  "      <source protocol='iscsi' name='iqn.2026-01.x:t/1'>\n        <host name='::1' "
                  "port='3261'/>\n"
                  "      </source>\n"},
        SourceRow{"nfs", UriDiskSource{.uri = uri("nfs://nas/vol/a.qcow2?uid=7&gid=8"), .format = "qcow2"},
                  "network", "qcow2",
                  "      <source protocol='nfs' name='/vol/a.qcow2'>\n        <host name='nas'/>\n"
                  "        <identity user='+7' group='+8'/>\n      </source>\n"}),
    test::row_name<SourceRow>);

struct DriverRow {
  std::string name;
  std::string before;
  std::string cache;
  std::string format;
  std::string after;
  Texts warnings{};
};
class DriverTable : public testing::TestWithParam<DriverRow> {};

TEST_P(DriverTable, FitsTheNewSource) {
  const auto disk = [](const std::string& path, const std::string& driver) {
    return domain_with("    <disk type='file' device='disk'>\n" + driver + "      <source file='" + path +
                       "'/>\n      <target dev='vda'/>\n    </disk>\n");
  };
  const auto rewritten = rewrite_domain(
      disk("/a", GetParam().before),
      {.disks = {
           {.target = "vda", .source = FileDiskSource{"/b", GetParam().format}, .cache = GetParam().cache}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_EQ(rewritten->xml, disk("/b", GetParam().after));
  EXPECT_EQ(rewritten->warnings, GetParam().warnings);
}

const std::string metadata_cache =
    "      <driver name='qemu' type='qcow2'>\n        <metadata_cache>\n          <max_size "
    "unit='bytes'>1</max_size>\n"
    "        </metadata_cache>\n      </driver>\n";

INSTANTIATE_TEST_SUITE_P(
    Drivers, DriverTable,
    testing::Values(
        DriverRow{"none", "", "", "raw", "      <driver name='qemu' type='raw'/>\n"},
        DriverRow{"native_with_cache_none",
                  "      <driver name='qemu' type='raw' cache='none' io='native'/>\n", "", "qcow2",
                  "      <driver name='qemu' type='qcow2' cache='none' io='native'/>\n"},
        DriverRow{"native_with_directsync",
                  "      <driver name='qemu' type='raw' cache='none' io='native'/>\n", "directsync", "raw",
                  "      <driver name='qemu' type='raw' cache='directsync' io='native'/>\n"},
        DriverRow{"native_with_another_cache",
                  "      <driver name='qemu' type='raw' cache='none' io='native'/>\n",
                  "writeback",
                  "raw",
                  "      <driver name='qemu' type='raw' cache='writeback' io='threads'/>\n",
                  {"vda: io='native' became 'threads': it needs the cache mode none or directsync"}},
        DriverRow{"native_with_the_default",
                  "      <driver name='qemu' type='raw' io='native'/>\n",
                  "",
                  "raw",
                  "      <driver name='qemu' type='raw' io='threads'/>\n",
                  {"vda: io='native' became 'threads': it needs the cache mode none or directsync"}},
        DriverRow{"metadata_cache_stays_with_qcow2", metadata_cache, "", "qcow2", metadata_cache},
        DriverRow{"metadata_cache_goes",
                  metadata_cache,
                  "",
                  "raw",
                  "      <driver name='qemu' type='raw'/>\n",
                  {"vda: the size of the qcow2 metadata cache is left out, the new format has none"}}),
    test::row_name<DriverRow>);

TEST(RewriteDisk, MediumForAnEmptyDrive) {
  const auto rewritten =
      rewrite_domain(domain_with("    <disk type='file' device='cdrom'>\n"
                                 "      <driver name='qemu'/>\n"
                                 "      <target dev='sda' bus='sata'/>\n"
                                 "    </disk>\n"),
                     {.disks = {{.target = "sda", .source = FileDiskSource{"/a.iso", "raw"}}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_EQ(rewritten->xml, domain_with("    <disk type='file' device='cdrom'>\n"
                                        "      <driver name='qemu' type='raw'/>\n"
                                        "      <source file='/a.iso'/>\n"
                                        "      <target dev='sda' bus='sata'/>\n"
                                        "    </disk>\n"));
}

TEST(RewriteDisk, UriOptionsWithoutAPlaceAreNamed) {
  const auto rewritten = rewrite_domain(
      domain_with("<disk><source file='/a'/><target dev='vda'/></disk>"),
      {.disks = {{.target = "vda", .source = UriDiskSource{.uri = uri("rbd://p/i?keyring=/etc/k")}}}});
  ASSERT_TRUE(rewritten) << rewritten.error().message();
  EXPECT_EQ(rewritten->warnings,
            Texts{"vda: 'keyring' of the URI has no place in domain XML and is left out"});
}

struct RefusedRow {
  std::string name;
  std::string disk;
  DiskRewrite change;
  ErrorKind kind;
};
class RefusedTable : public testing::TestWithParam<RefusedRow> {};

TEST_P(RefusedTable, IsAnError) {
  const auto rewritten = rewrite_domain(domain_with(GetParam().disk), {.disks = {GetParam().change}});
  ASSERT_FALSE(rewritten) << rewritten->xml;
  EXPECT_EQ(rewritten.error().kind(), GetParam().kind) << rewritten.error().message();
}

DiskRewrite to(DiskSource source) {
  return {.target = "vda", .source = std::move(source)};
}
const std::string plain = "<disk type='file'><source file='/a'/><target dev='vda'/></disk>";
const std::string lun = "<disk type='block' device='lun'><source dev='/dev/a'/><target dev='vda'/></disk>";
const std::string vhost = "<disk type='vhostuser'><source type='unix' path='/a'/><target dev='vda'/></disk>";

INSTANTIATE_TEST_SUITE_P(
    Changes, RefusedTable,
    testing::Values(
        RefusedRow{"no_such_disk", plain, {"vdz", FileDiskSource{"/b", "raw"}}, ErrorKind::not_found},
        RefusedRow{"relative_path", plain, to(FileDiskSource{"b", "raw"}), ErrorKind::invalid_argument},
        RefusedRow{"uri_as_path", plain, to(BlockDiskSource{"nbd://h/x", "raw"}),
                   ErrorKind::invalid_argument},
        RefusedRow{"newline", plain, to(FileDiskSource{"/b\n", "raw"}), ErrorKind::invalid_argument},
        RefusedRow{"nul", plain, to(FileDiskSource{std::string("/b\0c", 4), "raw"}),
                   ErrorKind::invalid_argument},
        RefusedRow{"no_format", plain, to(FileDiskSource{"/b", ""}), ErrorKind::invalid_argument},
        RefusedRow{"odd_format", plain, to(FileDiskSource{"/b", "raw' x='"}), ErrorKind::invalid_argument},
        RefusedRow{"nbd_nowhere", plain, to(NbdDiskSource{}), ErrorKind::invalid_argument},
        RefusedRow{"nbd_twice", plain, to(NbdDiskSource{.host = "h", .socket = "/s"}),
                   ErrorKind::invalid_argument},
        RefusedRow{"nbd_port", plain, to(NbdDiskSource{.host = "h", .port = 0}), ErrorKind::invalid_argument},
        RefusedRow{"nbd_relative_socket", plain, to(NbdDiskSource{.socket = "s"}),
                   ErrorKind::invalid_argument},
        RefusedRow{"nbd_name_without_tls", plain, to(NbdDiskSource{.host = "h", .tls_hostname = "x"}),
                   ErrorKind::invalid_argument},
        RefusedRow{"nbd_tls_on_a_socket", plain, to(NbdDiskSource{.socket = "/s", .tls = true}),
                   ErrorKind::invalid_argument},
        RefusedRow{"user_without_secret", plain, to(UriDiskSource{.uri = uri("iscsi://u@h/iqn.x/1")}),
                   ErrorKind::invalid_argument},
        RefusedRow{"rbd_without_image", plain, to(UriDiskSource{.uri = uri("rbd://pool/")}),
                   ErrorKind::invalid_argument},
        RefusedRow{"other_scheme", plain, to(UriDiskSource{.uri = uri("https://h/x")}),
                   ErrorKind::unsupported},
        RefusedRow{"lun_to_file", lun, to(FileDiskSource{"/b", "raw"}), ErrorKind::unsupported},
        RefusedRow{"lun_to_qcow2", lun, to(BlockDiskSource{"/dev/b", "qcow2"}), ErrorKind::unsupported},
        RefusedRow{"vhostuser", vhost, to(FileDiskSource{"/b", "raw"}), ErrorKind::unsupported}),
    test::row_name<RefusedRow>);

TEST(RewriteDisk, LunMayMoveToOtherScsiStorage) {
  EXPECT_TRUE(rewrite_domain(domain_with(lun), {.disks = {to(BlockDiskSource{"/dev/b", "raw"})}}));
  EXPECT_TRUE(
      rewrite_domain(domain_with(lun), {.disks = {to(UriDiskSource{.uri = uri("iscsi://h/iqn.x/1")})}}));
}

TEST(DiskSourceOf, ImagesAsOperatorsNameThem) {
  const auto file = disk_source(ImageUri::from_path("/srv/a"), "qcow2", false);
  ASSERT_TRUE(file);
  EXPECT_EQ(std::get<FileDiskSource>(*file).format, "qcow2");
  const auto block = disk_source(ImageUri::from_path("/dev/a"), "raw", true);
  ASSERT_TRUE(block);
  EXPECT_EQ(std::get<BlockDiskSource>(*block).path, "/dev/a");
  const auto nbd = disk_source(uri("nbds://gw:10810/x/y?tls-hostname=n"), "", false);
  ASSERT_TRUE(nbd);
  EXPECT_EQ(std::get<NbdDiskSource>(*nbd).export_name, "x/y");
  EXPECT_EQ(std::get<NbdDiskSource>(*nbd).port, 10810);
  EXPECT_TRUE(std::get<NbdDiskSource>(*nbd).tls);
  EXPECT_EQ(std::get<NbdDiskSource>(*nbd).tls_hostname, "n");
  const auto socket = disk_source(uri("nbd+unix:///x?socket=/run/s"), "raw", false);
  ASSERT_TRUE(socket);
  EXPECT_EQ(std::get<NbdDiskSource>(*socket).socket, "/run/s");
  const auto rbd = disk_source(uri("rbd://p/i"), "raw", false);
  ASSERT_TRUE(rbd);
  EXPECT_EQ(std::get<UriDiskSource>(*rbd).uri, uri("rbd://p/i"));
}

// What is written for a URI is read as the same URI.
TEST(DiskSourceOf, GoesThroughXmlAndBack) {
  const std::string xml = domain_with("<disk><source file='/a'/><target dev='vda'/></disk>");
  for (const std::string name : {"/srv/a b'\"<&>.raw", "nbd://h:10809/x%20y", "nbds://h:1/x?tls-hostname=n",
                                 "nbd://[::1]:10809/a/b", "nbd+unix:///x?socket=/run/s%3F", "rbd://p/i",
                                 "rbd://p/ns/i@s?conf=/etc/c&id=u&mon_host=a:1,%5B::1%5D:2",
                                 "iscsi://u@h:3260/iqn.x:y/1", "nfs://h/v/a?uid=1&gid=2"}) {
    const auto source = disk_source(uri(name), "raw", false, "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f");
    ASSERT_TRUE(source) << source.error().message();
    const auto rewritten = rewrite_domain(xml, {.disks = {{"vda", *source}}});
    ASSERT_TRUE(rewritten) << rewritten.error().message();
    EXPECT_EQ(rewritten->warnings, Texts{});
    EXPECT_TRUE(uri(test::read(rewritten->xml).disks[0].source) == uri(name)) << name << rewritten->xml;
  }
}

TEST(DiskSourceOf, RefusesWhatLibvirtCannotName) {
  EXPECT_EQ(disk_source(ImageUri::from_path("/srv/a"), "", false).error().kind(),
            ErrorKind::invalid_argument);
  EXPECT_EQ(disk_source(uri("nbd://h/x"), "qcow2", false).error().kind(), ErrorKind::invalid_argument);
  EXPECT_EQ(disk_source(uri("https://h/x"), "raw", false).error().kind(), ErrorKind::unsupported);
}

}  // namespace
}  // namespace diskferry
