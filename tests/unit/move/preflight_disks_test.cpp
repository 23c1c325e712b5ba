// Rules about disks and where they go.
#include "tests/unit/move/preflight_facts.hpp"

namespace diskferry::test {
namespace {
class PreflightDisks : public testing::TestWithParam<PreflightRow> {};
TEST_P(PreflightDisks, FindsExactlyThis) {
  check_row(GetParam());
}
const auto name_of = [](const auto& row) { return row.param.name; };
using Facts = PreflightFacts;

DiskFacts& shared_vdb(Facts& facts, std::string cache) {
  DiskFacts& disk = add_disk(facts, "vdb");
  disk.is_shared = true;
  disk.disk.cache = std::move(cache);
  return disk;
}
DiskFacts& add_drive(Facts& facts) {
  DiskFacts& drive = add_disk(facts, "sda");
  drive.disk.device = "cdrom";
  drive.disk.is_read_only = true;
  return drive;
}
void set_target(Facts& facts, std::string uri, std::string format) {
  vda(facts).move = MoveDisk{.target = "vda", .uri = std::move(uri), .format = std::move(format)};
  facts.request.disks = {*vda(facts).move};
}
/// A second disk that goes beside the first.
DiskFacts& add_copied(Facts& facts, std::string uri) {
  DiskFacts& disk = add_disk(facts, "vdb");
  disk.move = MoveDisk{.target = "vdb", .uri = std::move(uri), .format = "raw"};
  disk.target = at_target(facts);
  facts.request.disks.push_back(*disk.move);
  return disk;
}

INSTANTIATE_TEST_SUITE_P(
    Sources, PreflightDisks,
    testing::Values(
        PreflightRow{"unknown_disk",
                     [](Facts& f) { f.request.disks.push_back({.target = "vdz", .uri = "/new/z"}); },
                     {"blocker no-such-disk vdz"}},
        PreflightRow{"not_named", [](Facts& f) { add_disk(f, "vdb"); }, {"blocker disk-not-named vdb"}},
        PreflightRow{"read_only_not_named",
                     [](Facts& f) { add_disk(f, "vdb").disk.is_read_only = true; },
                     {"blocker disk-not-named vdb"}},
        PreflightRow{"shared", [](Facts& f) { shared_vdb(f, "none"); }, {"note disk-shared vdb"}},
        PreflightRow{"shared_by_name",
                     [](Facts& f) { shared_vdb(f, "none").is_shared_by_name = true; },
                     {"warning shared-by-name vdb"}},
        PreflightRow{"shared_with_a_kept_source",
                     [](Facts& f) {
                       f.request.keep_source = true;
                       shared_vdb(f, "none");
                     },
                     {"warning kept-source-shares vdb", "note disk-shared vdb"}},
        PreflightRow{"shared_medium_with_a_kept_source",
                     [](Facts& f) {
                       f.request.keep_source = true;
                       shared_vdb(f, "none").disk.is_read_only = true;
                     },
                     {"note disk-shared vdb"}},
        PreflightRow{"empty_drive",
                     [](Facts& f) {
                       VmDisk& drive = add_drive(f).disk;
                       drive.source.clear();
                       drive.source_type.clear();
                     },
                     {}},
        PreflightRow{"empty_drive_named",
                     [](Facts& f) {
                       DiskFacts& drive = add_drive(f);
                       drive.disk.source.clear();
                       drive.disk.source_type.clear();
                       drive.move = MoveDisk{.target = "sda", .uri = "/new/sda", .format = "raw"};
                       f.request.disks.push_back(*drive.move);
                     },
                     {"blocker no-medium sda"}},
        PreflightRow{"medium", [](Facts& f) { add_drive(f); }, {"blocker local-medium sda"}},
        PreflightRow{
            "medium_is_shared", [](Facts& f) { add_drive(f).is_shared = true; }, {"note disk-shared sda"}},
        PreflightRow{"cached_and_shared",
                     [](Facts& f) { shared_vdb(f, "writeback"); },
                     {"note disk-shared vdb", "note cache-dropped vdb"}},
        PreflightRow{"cached_and_shared_by_old_hypervisor",
                     [](Facts& f) {
                       shared_vdb(f, "");
                       f.source.hypervisor_version = 3001000;
                     },
                     {"blocker cache-not-safe vdb", "note disk-shared vdb"}},
        PreflightRow{"cached_and_copied", [](Facts& f) { vda(f).disk.cache = "writeback"; }, {}},
        PreflightRow{"unsafe", [](Facts& f) { vda(f).disk.cache = "unsafe"; }, {"warning cache-unsafe vda"}},
        PreflightRow{
            "transient", [](Facts& f) { vda(f).disk.is_transient = true; }, {"blocker disk-transient vda"}},
        PreflightRow{
            "shareable", [](Facts& f) { vda(f).disk.is_shareable = true; }, {"blocker disk-shareable vda"}},
        PreflightRow{"shareable_and_shared",
                     [](Facts& f) { shared_vdb(f, "").disk.is_shareable = true; },
                     {"note disk-shared vdb"}},
        PreflightRow{"vhostuser",
                     [](Facts& f) { vda(f).disk.source_type = "vhostuser"; },
                     {"blocker disk-not-copyable vda"}},
        PreflightRow{
            "encrypted", [](Facts& f) { vda(f).disk.is_encrypted = true; }, {"blocker disk-encrypted vda"}},
        PreflightRow{"lun", [](Facts& f) { vda(f).disk.device = "lun"; }, {"warning disk-lun vda"}},
        PreflightRow{
            "block_job", [](Facts& f) { vda(f).disk.has_block_job = true; }, {"blocker block-job vda"}},
        PreflightRow{"chain", [](Facts& f) { vda(f).backing_layers = 2; }, {"note chain-flattened vda"}},
        PreflightRow{"snapshots_inside",
                     [](Facts& f) { vda(f).internal_snapshots = 1; },
                     {"warning snapshots-lost vda"}},
        PreflightRow{"memory_only",
                     [](Facts& f) {
                       f.request.disks.clear();
                       vda(f).move.reset();
                       vda(f).is_shared = true;
                     },
                     {"note disk-shared vda", "note no-disks machine"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Targets, PreflightDisks,
    testing::Values(
        PreflightRow{"not_seen",
                     [](Facts& f) {
                       vda(f).target.reset();
                       vda(f).target_problem =
                           fail(ErrorKind::timed_out, "look at the target", "/new/web.raw");
                     },
                     {"blocker target-not-seen vda"}},
        PreflightRow{"unusable",
                     [](Facts& f) { at_target(f).problem = "/new: No such file or directory"; },
                     {"blocker target-unusable vda"}},
        PreflightRow{"exists",
                     [](Facts& f) {
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 10 * gib;
                       at_target(f).problem = "it exists already";
                     },
                     {"blocker target-exists vda"}},
        PreflightRow{"taken_up",
                     [](Facts& f) {
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 10 * gib;
                     },
                     {"note target-taken-up vda"}},
        PreflightRow{"taken_up_of_another_size",
                     [](Facts& f) {
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 10 * gib + 512;
                     },
                     {"blocker target-size vda", "note target-taken-up vda"}},
        PreflightRow{"overwritten",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 5 * gib;
                     },
                     {"warning target-overwritten vda"}},
        PreflightRow{"overwritten_block_device",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       vda(f).move->uri = "/dev/vg/web";
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 11 * gib;
                     },
                     {"warning target-overwritten vda", "note target-larger vda"}},
        PreflightRow{"overwritten_block_device_too_small",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       vda(f).move->uri = "/dev/vg/web";
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 9 * gib;
                     },
                     {"blocker target-size vda", "warning target-overwritten vda"}},
        PreflightRow{"larger_lun",
                     [](Facts& f) {
                       set_target(f, "iscsi://h/iqn.2026-01.org.example:t/1", "raw");
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 11 * gib;
                     },
                     {"warning target-overwritten vda", "note target-larger vda"}},
        PreflightRow{"itself",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       at_target(f).identity = vda(f).identity;
                     },
                     {"blocker same-storage vda", "warning target-overwritten vda"}},
        PreflightRow{"block_device_that_begins_alike",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       vda(f).identity = "file|0|10|0|aa";
                       at_target(f).identity = vda(f).identity;
                     },
                     {"warning target-overwritten vda", "warning looks-the-same vda"}},
        PreflightRow{"another_of_its_disks",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       at_target(f).identity = shared_vdb(f, "none").identity;
                     },
                     {"blocker same-storage vda", "warning target-overwritten vda", "note disk-shared vdb"}},
        PreflightRow{"onto_a_layer_of_its_own",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       at_target(f).identity = "file|12|10|1|cc";
                       vda(f).own_storage = "/images/base.qcow2";
                     },
                     {"blocker same-storage vda", "warning target-overwritten vda"}},
        PreflightRow{"names_of_each_host",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       vda(f).disk.source = "nbd://127.0.0.1/web";
                       vda(f).identity = "nbd|127.0.0.1|10809||web";
                       vda(f).move->uri = "nbd://127.0.0.1/web";
                       at_target(f).exists = true;
                       at_target(f).identity = vda(f).identity;
                     },
                     {"warning target-overwritten vda"}},
        PreflightRow{
            "qcow2", [](Facts& f) { f.request.disks[0].format = "qcow2"; }, {"note through-hypervisor vda"}},
        PreflightRow{"network_raw",
                     [](Facts& f) {
                       set_target(f, "rbd://pool/web", "raw");
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 10 * gib;
                     },
                     {"warning target-overwritten vda"}},
        PreflightRow{"network_too_small",
                     [](Facts& f) {
                       set_target(f, "rbd://pool/web", "raw");
                       at_target(f).exists = true;
                       at_target(f).size_bytes = 9 * gib;
                     },
                     {"blocker target-size vda", "warning target-overwritten vda"}},
        PreflightRow{"network_missing",
                     [](Facts& f) { set_target(f, "rbd://pool/web", "raw"); },
                     {"blocker target-missing vda"}},
        PreflightRow{"network_qcow2",
                     [](Facts& f) {
                       set_target(f, "rbd://pool/web", "qcow2");
                       at_target(f).exists = true;
                     },
                     {"blocker network-format vda", "warning target-overwritten vda"}},
        PreflightRow{"twice", [](Facts& f) { add_copied(f, "/new/web.raw"); }, {"blocker target-twice vdb"}},
        PreflightRow{"beside", [](Facts& f) { add_copied(f, "/new/vdb.raw"); }, {}},
        PreflightRow{
            "size_not_known", [](Facts& f) { vda(f).size_bytes = 0; }, {"blocker size-not-known vda"}},
        PreflightRow{"sectors_of_4096",
                     [](Facts& f) { at_target(f).block_bytes = 4096; },
                     {"blocker sector-size vda"}},
        PreflightRow{"sectors_of_4096_on_both_sides",
                     [](Facts& f) {
                       at_target(f).block_bytes = 4096;
                       vda(f).disk.logical_block_bytes = 4096;
                     },
                     {}},
        PreflightRow{"size_not_sectors",
                     [](Facts& f) {
                       vda(f).size_bytes = 10 * gib + 512;
                       vda(f).disk.logical_block_bytes = 4096;
                     },
                     {"blocker size-not-sectors vda"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Space, PreflightDisks,
    testing::Values(
        PreflightRow{"enough", [](Facts& f) { at_target(f).space_available_bytes = 10 * gib; }, {}},
        PreflightRow{"short",
                     [](Facts& f) { at_target(f).space_available_bytes = 10 * gib - 1; },
                     {"warning space-short vda"}},
        PreflightRow{"none",
                     [](Facts& f) { at_target(f).space_available_bytes = 10 * gib / 4 - 1; },
                     {"blocker no-space vda"}},
        PreflightRow{"allocated_not_known",
                     [](Facts& f) {
                       vda(f).allocated_bytes.reset();
                       at_target(f).space_available_bytes = 1;
                     },
                     {"warning space-short vda"}},
        PreflightRow{"of_two_disks_together",
                     [](Facts& f) {
                       at_target(f).space_available_bytes = 10 * gib / 2 - 1;
                       add_copied(f, "/new/vdb.raw");
                     },
                     {"blocker no-space vda, vdb"}},
        PreflightRow{"of_two_disks_in_two_places",
                     [](Facts& f) {
                       at_target(f).space_available_bytes = 10 * gib;
                       add_copied(f, "/other/vdb.raw");
                     },
                     {}},
        PreflightRow{"made_by_what_is_replaced",
                     [](Facts& f) {
                       f.request.overwrite = true;
                       at_target(f).exists = true;
                       at_target(f).space_available_bytes = 1;
                     },
                     {"warning target-overwritten vda", "warning space-short vda"}},
        PreflightRow{"not_known", [](Facts& f) { at_target(f).space_available_bytes = 0; }, {}}),
    name_of);

}  // namespace
}  // namespace diskferry::test
