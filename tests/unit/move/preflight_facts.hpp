// A move against which nothing speaks, for tests that spoil it in one place, and how its findings are told.
#pragma once

#include "diskferry/units.hpp"
#include "gateway/move/preflight.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry::test {

inline HostFacts good_host(std::string name) {
  return {.hostname = name + ".example.org",
          .uuid = "uuid-of-" + name,
          .libvirt_version = 9000000,
          .hypervisor_version = 7002022,
          .memory_bytes = 64 * gib,
          .memory_free_bytes = 32 * gib,
          .cpus = 8,
          .networks = {"default"},
          .interfaces = {"br0", "eth0"},
          .lists_interfaces = true,
          .security_models = {},
          .hypervisor_user = "+64055:+64055",
          .guests = {{.architecture = "x86_64",
                      .domain_type = "kvm",
                      .emulator = "/usr/bin/qemu-system-x86_64",
                      .machines = {{"pc-q35-7.2", 288}, {"q35", 288}}}},
          .firmwares = {"/usr/share/OVMF/OVMF_CODE_4M.fd"}};
}

inline GatewayFacts good_gateway(std::string name) {
  return {.name = name,
          .version = "0.1.0",
          .machine_id = "id-of-" + name,
          .time_ms = 0,
          .move_folder = "/run/diskferry/moves",
          .nbd_port = 10809,
          .nbd_requires_tls = true};
}

/// A running machine with one raw disk of 10 GiB, a quarter of it in use, that goes to a new file.
inline PreflightFacts good_facts() {
  PreflightFacts facts;
  facts.machine = {.name = "web",
                   .uuid = "uuid-of-web",
                   .domain_type = "kvm",
                   .machine = "pc-q35-7.2",
                   .architecture = "x86_64",
                   .emulator = "/usr/bin/qemu-system-x86_64",
                   .memory_bytes = 4 * gib,
                   .vcpus = 2,
                   .state = VmState::running};
  facts.machine.interfaces = {{.type = "network", .source = "default", .mac = "52:54:00:00:00:01"}};
  VmDisk disk{.target = "vda", .alias = "virtio-disk0", .device = "disk", .bus = "virtio"};
  disk.source_type = "file";
  disk.source = "/images/web.qcow2";
  disk.format = "qcow2";
  disk.cache = "none";
  facts.machine.disks = {disk};
  const MoveDisk move{.target = "vda", .uri = "/new/web.raw", .format = "raw"};
  facts.request = {.domain = "web",
                   .destination = "qemu+tls://b/system",
                   .gateway = "https://b:10810",
                   .disks = {move},
                   .timeout_s = 3600,
                   .memory_uri = "unix:///run/m.sock"};
  facts.disks = {{.disk = disk,
                  .move = move,
                  .size_bytes = 10 * gib,
                  .allocated_bytes = 10 * gib / 4,
                  .identity = "file|11|10|1|aa",
                  .target = TargetDiskFacts{.space_available_bytes = 100 * gib}}};
  facts.source = good_host("a");
  facts.target = good_host("b");
  facts.here = good_gateway("a");
  facts.there = good_gateway("b");
  facts.gateway_certificate_name = "b";
  facts.cpu = CpuFit::fits;
  facts.clock_skew_ms = 12;
  facts.round_trip_us = 300;
  return facts;
}

/// The disk of good_facts(), and its target.
inline DiskFacts& vda(PreflightFacts& facts) {
  return facts.disks.front();
}
inline TargetDiskFacts& at_target(PreflightFacts& facts) {
  return *vda(facts).target;
}

/// A second disk, which is not to be copied unless the test says so.
inline DiskFacts& add_disk(PreflightFacts& facts, std::string target) {
  DiskFacts another = vda(facts);
  another.disk.target = target;
  another.disk.source = "/images/" + target + ".qcow2";
  another.identity = "file|" + target + "|10|1|bb";
  another.move.reset();
  another.target.reset();
  facts.machine.disks.push_back(another.disk);
  facts.disks.push_back(std::move(another));
  return facts.disks.back();
}

/// "blocker same-host target", for each finding.
inline std::vector<std::string> told(const std::vector<Finding>& findings) {
  std::vector<std::string> all;
  for (const Finding& each : findings)
    all.push_back(std::string(to_string(each.severity)) + " " + each.code + " " + each.subject);
  return all;
}

/// What a move is when it has been spoilt, and all that is found then.
struct PreflightRow {
  std::string name;
  void (*spoil)(PreflightFacts&);
  std::vector<std::string> found;
};
inline void PrintTo(const PreflightRow& row, std::ostream* out) {
  *out << row.name;
}

/// Checks one row, and what holds for every finding.
void check_row(const PreflightRow& row);

}  // namespace diskferry::test
