// What speaks against bringing a machine's disk onto the gateway, and on which storage a disk is.
#include "gateway/move/adoption_plan.hpp"
#include "gateway/move/adoption_rules.hpp"
#include "gateway/move/domain_disk.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {

AdoptionFacts good_facts() {
  AdoptionFacts facts{.disk = "vda", .libvirt_version = 9'000'000};
  facts.request.disks = {{.name = "web:vda", .uri = "/new/web.raw", .domain = "web", .disk = "vda"}};
  facts.machine.name = "web";
  facts.machine.state = VmState::running;
  VmDisk disk{.target = "vda", .device = "disk", .bus = "virtio", .source_type = "file"};
  disk.source = "/images/web.qcow2";
  facts.machine.disks = {disk};
  return facts;
}
VmDisk& vda(AdoptionFacts& facts) {
  return facts.machine.disks.front();
}

struct Row {
  std::string name;
  void (*spoil)(AdoptionFacts&);
  std::vector<std::string> found;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}
class AdoptionRules : public testing::TestWithParam<Row> {};

TEST_P(AdoptionRules, FindExactlyThis) {
  AdoptionFacts facts = good_facts();
  GetParam().spoil(facts);
  std::vector<std::string> found;
  for (const Finding& each : examine(facts)) {
    found.push_back(std::string(to_string(each.severity)) + " " + each.code + " " + each.subject);
    EXPECT_FALSE(each.text.empty());
    EXPECT_EQ(each.remedy.empty(), each.severity == Severity::note) << each.code;
  }
  EXPECT_EQ(found, GetParam().found);
  const auto refused = refuse_adoption(examine(facts), "web:vda");
  EXPECT_EQ(refused.has_value(), !has_blocker(examine(facts)));
  if (!refused) EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
}

using Facts = AdoptionFacts;
INSTANTIATE_TEST_SUITE_P(
    All, AdoptionRules,
    testing::Values(
        Row{"nothing", [](Facts&) {}, {}},
        Row{"paused", [](Facts& f) { f.machine.state = VmState::paused; }, {}},
        Row{"no_disk", [](Facts& f) { f.disk = "vdz"; }, {"blocker no-such-disk vdz"}},
        Row{"shut_off", [](Facts& f) { f.machine.state = VmState::shut_off; }, {"blocker not-running vda"}},
        Row{"in_job", [](Facts& f) { f.is_in_job = true; }, {"blocker machine-busy vda"}},
        Row{"transient_machine",
            [](Facts& f) { f.machine.is_persistent = false; },
            {"warning not-persistent vda"}},
        Row{"old_libvirt", [](Facts& f) { f.libvirt_version = 7'010'000; }, {"blocker libvirt-old vda"}},
        Row{"cdrom",
            [](Facts& f) {
              vda(f).device = "cdrom";
              vda(f).is_read_only = true;
            },
            {"blocker removable vda"}},
        Row{"floppy", [](Facts& f) { vda(f).device = "floppy"; }, {"blocker removable vda"}},
        Row{"empty", [](Facts& f) { vda(f).source_type = vda(f).source = ""; }, {"blocker no-medium vda"}},
        Row{"lun", [](Facts& f) { vda(f).device = "lun"; }, {"blocker lun vda"}},
        Row{"vhost_user", [](Facts& f) { vda(f).source_type = "vhostuser"; }, {"blocker not-copyable vda"}},
        Row{"read_only", [](Facts& f) { vda(f).is_read_only = true; }, {"blocker read-only vda"}},
        Row{"shareable", [](Facts& f) { vda(f).is_shareable = true; }, {"blocker shareable vda"}},
        Row{"transient", [](Facts& f) { vda(f).is_transient = true; }, {"blocker transient vda"}},
        Row{"encrypted", [](Facts& f) { vda(f).is_encrypted = true; }, {"blocker encrypted vda"}},
        Row{"mirrored", [](Facts& f) { vda(f).has_block_job = true; }, {"blocker block-job vda"}},
        Row{"committed", [](Facts& f) { f.has_disk_job = true; }, {"blocker block-job vda"}},
        Row{"snapshots", [](Facts& f) { f.machine.has_snapshots = true; }, {"blocker snapshots vda"}},
        Row{"checkpoints", [](Facts& f) { f.machine.has_checkpoints = true; }, {"blocker checkpoints vda"}},
        Row{"chain", [](Facts& f) { vda(f).backing = {"/images/base"}; }, {"note chain-flattened vda"}},
        Row{"retain", [](Facts& f) { f.request.retain_s = 1; }, {"blocker retain vda"}},
        Row{"remove_source", [](Facts& f) { f.request.remove_source = true; }, {"blocker remove-source vda"}},
        Row{"remove_source_of_ours",
            [](Facts& f) {
              f.request.remove_source = f.request.rehome = true;
              f.on_export = ExportStorage{.name = "web:vda", .is_disk = true};
            },
            {}},
        Row{"remove_source_of_native",
            [](Facts& f) { f.request.remove_source = f.request.rehome = true; },
            {"blocker remove-source vda"}},
        Row{"rehome_from_configured",
            [](Facts& f) {
              f.request.rehome = f.request.remove_source = true;
              f.on_export = ExportStorage{.name = "web"};
            },
            {"blocker remove-source vda", "warning export-stays vda"}},
        Row{"rehome_retain",
            [](Facts& f) {
              f.request.rehome = true;
              f.request.retain_s = 1;
            },
            {"blocker retain vda"}},
        Row{"deadline", [](Facts& f) { f.request.deadline_s = 1; }, {"blocker deadline vda"}}),
    [](const auto& row) { return row.param.name; });

constexpr auto here = "nbd+unix:///web:vda?socket=/run/d/nbd.sock";

TEST(DomainDisk, IsWhereItsSourceSays) {
  VmDisk disk{.target = "vda"};
  disk.source = "/images/web.qcow2";
  EXPECT_EQ(place_of(disk, here), DiskPlace::source);
  disk.mirror = VmMirror{.source = "/images/copy.raw"};
  EXPECT_EQ(place_of(disk, here), DiskPlace::source);
  disk.mirror = VmMirror{.source = here};
  EXPECT_EQ(place_of(disk, here), DiskPlace::copying);
  disk.mirror.reset();
  disk.source = here;
  EXPECT_EQ(place_of(disk, here), DiskPlace::target);
}

TEST(DomainDisk, OtherExportsAreNotItsOwn) {
  VmDisk disk{.target = "vda"};
  for (const char* other :
       {"nbd+unix:///web:vdb?socket=/run/d/nbd.sock", "nbd+unix:///web:vda?socket=/run/e/nbd.sock",
        "nbd://localhost/web:vda", "/run/d/nbd.sock", ""}) {
    disk.source = other;
    EXPECT_EQ(place_of(disk, here), DiskPlace::source) << other;
    EXPECT_EQ(place_of(disk, ""), DiskPlace::source) << other;
  }
}

ReplaceDisk onto(const char* uri) {
  return {.name = "web:vda", .uri = uri, .domain = "web", .disk = "vda"};
}

TEST(Rehoming, TakesWhatQemuOpensByItself) {
  for (const char* uri : {"/new/a.raw", "/new/a.qcow2", "rbd://vms/web", "iscsi://host/iqn.2026-01.org:a/1",
                          "nfs://host/vms/web.raw", "gluster://host/vms/web.raw", "nbd://host/web"})
    EXPECT_TRUE(target_for_qemu(onto(uri))) << uri;
  const auto file = target_for_qemu(onto("/new/a.qcow2"));
  ASSERT_TRUE(file);
  EXPECT_EQ(std::get<FileDiskSource>(*file).format, "qcow2");
}

TEST(Rehoming, RefusesWhatQemuDoesNot) {
  for (const char* uri : {"nbd+unix:///a?socket=/run/a", "https://host/a.raw", "s3://bucket/a"}) {
    const auto refused = target_for_qemu(onto(uri));
    ASSERT_FALSE(refused) << uri;
    EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported) << uri;
    EXPECT_TRUE(refused.error().remedy().contains("leave out --rehome")) << uri;
  }
}

TEST(Rehoming, NeedsTheSecretOfAUser) {
  ReplaceDisk disk = onto("rbd://vms/web?id=web");
  const auto refused = target_for_qemu(disk);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().remedy().contains("--secret"));
  disk.secret = "11111111-2222-3333-4444-555555555555";
  EXPECT_TRUE(target_for_qemu(disk));
}

TEST(Rehoming, NotesWhatTheDiskIsOn) {
  AdoptionFacts facts = good_facts();
  facts.machine.disks.front().source_text = "/images/web.qcow2";
  ReplaceDiskState state;
  note_source(state, facts);
  EXPECT_EQ(state.source, "/images/web.qcow2");
  EXPECT_FALSE(state.ends_export);
  facts.on_export =
      ExportStorage{.name = "web:vda", .uri = "/gateway/web.raw", .format = "raw", .is_disk = true};
  note_source(state, facts);
  EXPECT_EQ(state.source, "/gateway/web.raw");
  EXPECT_FALSE(state.ends_export) << "another job leaves the export";
  facts.request.rehome = true;
  note_source(state, facts);
  EXPECT_TRUE(state.ends_export);
  facts.on_export->is_disk = false;
  note_source(state, facts);
  EXPECT_FALSE(state.ends_export) << "the configuration has it";
}

TEST(Rehoming, IsOfOneDiskAndMayNameASecret) {
  ReplaceRequest request;
  request.rehome = true;
  request.disks = {onto("rbd://vms/web?id=web")};
  request.disks.front().secret = "11111111-2222-3333-4444-555555555555";
  const auto read = parse_replace_request(to_json(request));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_TRUE(read->rehome);
  EXPECT_EQ(read->disks.front().secret, request.disks.front().secret);
  request.rehome = false;
  EXPECT_FALSE(check(request));
  request.rehome = true;
  request.disks.push_back({.name = "web:vdb", .uri = "/new/b.raw"});
  const auto refused = check(request);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().remedy().contains("for each"));
}

TEST(ReplaceRequest, NamesOneDiskOfAMachine) {
  ReplaceRequest request;
  request.disks = {{.name = "web:vda", .uri = "/new/a.raw", .domain = "web", .disk = "vda"}};
  const auto read = parse_replace_request(to_json(request));
  ASSERT_TRUE(read);
  EXPECT_TRUE(is_adoption(*read));
  EXPECT_EQ(read->disks.front().disk, "vda");
  request.disks.push_back({.name = "db", .uri = "/new/b.raw"});
  EXPECT_FALSE(check(request));
  request.disks.front().domain.clear();
  EXPECT_TRUE(check(request));
  EXPECT_FALSE(is_adoption(request));
}

}  // namespace
}  // namespace diskferry::test
