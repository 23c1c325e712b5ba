// Moves without libvirt, as far as values go: names that may be opened, what a lost move becomes, what speaks
// against one.
#include "gateway/move/qmp_preflight.hpp"
#include "gateway/move/qmp_request.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

TEST(QmpRequest, AMonitorIsAPlainPath) {
  const struct {
    std::string_view name;
    std::string_view path;  // empty: refused
  } rows[] = {
      {"qmp:/run/qemu/vm-a.qmp", "/run/qemu/vm-a.qmp"},
      {"qmp://host-b/run/qemu/vm_b.1", "/run/qemu/vm_b.1"},
      {"qmp:///run/vm", "/run/vm"},
      {"/run/vm", ""},
      {"qmp:run/vm", ""},
      {"qmp:", ""},
      {"qmp://host", ""},
      {"qmp:/run/../etc/vm", ""},
      {"qmp:/run/./vm", ""},
      {"qmp:/run//vm", ""},
      {"qmp:/run/vm/", ""},
      {"qmp:/run/.hidden", ""},
      {"qmp:/run/a,b", ""},
      {"qmp:/run/a b", ""},
      {"qemu:///system", ""},
  };
  for (const auto& row : rows) {
    const auto path = monitor_path(row.name);
    EXPECT_EQ(path ? *path : "", row.path) << row.name;
  }
  EXPECT_FALSE(monitor_path("qmp:/" + std::string(107, 'a')));
}

TEST(QmpRequest, TheMemoryGoesToAnAddressAndNowhereElse) {
  const struct {
    std::string_view uri;
    std::string_view address;  // empty: refused
  } rows[] = {
      {"tcp://10.0.0.2:4444", "tcp:10.0.0.2:4444"},
      {"tcp:host-b:1", "tcp:host-b:1"},
      {"tcp://[fd00::2]:65535", "tcp:[fd00::2]:65535"},
      {"unix:/run/qemu/memory", "unix:/run/qemu/memory"},
      {"unix:///run/qemu/memory", "unix:/run/qemu/memory"},
      {"tcp://10.0.0.2", ""},
      {"tcp://10.0.0.2:0", ""},
      {"tcp://10.0.0.2:65536", ""},
      {"tcp://10.0.0.2:44,to=99", ""},
      {"tcp://:4444", ""},
      {"tcp://-x:4444", ""},
      {"exec:nc -l 4444", ""},
      {"exec:/bin/true", ""},
      {"fd:3", ""},
      {"rdma:host:1", ""},
      {"unix:relative", ""},
      {"unix:/run/../etc/passwd", ""},
      {"", ""},
  };
  for (const auto& row : rows) {
    const auto address = memory_address(row.uri);
    EXPECT_EQ(address ? *address : "", row.address) << row.uri;
  }
}

MoveRequest a_request() {
  return {.domain = "qmp:/run/qemu/a.qmp",
          .destination = "qmp://host-b/run/qemu/b.qmp",
          .disks = {{"vda", "/images/b.raw", ""}},
          .overwrite = true,
          .memory_uri = "tcp://10.0.0.2:4444"};
}

TEST(QmpRequest, BothEndsAreMonitorsAndOnlyOptionsThatMeanSomething) {
  must(check(a_request()));
  const struct {
    std::string_view name;
    std::function<void(MoveRequest&)> change;
  } rows[] = {
      {"a domain of libvirt", [](auto& request) { request.domain = "web1"; }},
      {"a destination of libvirt", [](auto& request) { request.destination = "qemu+ssh://host-b/system"; }},
      {"no memory", [](auto& request) { request.memory_uri.clear(); }},
      {"memory for a program", [](auto& request) { request.memory_uri = "exec:cat"; }},
      {"cold", [](auto& request) { request.cold = true; }},
      {"post-copy", [](auto& request) { request.post_copy = true; }},
      {"networks", [](auto& request) { request.networks = {{"a", "b"}}; }},
      {"suspend", [](auto& request) { request.timeout_action = TimeoutAction::suspend; }},
  };
  for (const auto& row : rows) {
    MoveRequest request = a_request();
    row.change(request);
    EXPECT_FALSE(check(request)) << row.name;
  }
}

TEST(QmpRequest, OnlyMonitorsOfTheFolderMayBeOpened) {
  const test::TemporaryFolder folder;
  std::filesystem::create_directories(folder / "allowed/deep");
  std::ofstream(folder / "allowed/deep/there");
  std::ofstream(folder / "outside");
  std::filesystem::create_symlink(folder / "outside", folder / "allowed/link");
  const auto kind = [&](const std::string& path) {
    const auto checked = check_monitor_allowed(folder / "allowed", folder / path);
    return checked ? std::optional<ErrorKind>() : checked.error().kind();
  };
  EXPECT_EQ(kind("allowed/deep/there"), std::nullopt);
  EXPECT_EQ(kind("allowed/absent"), ErrorKind::not_found) << "allowed, and nobody is there";
  EXPECT_EQ(kind("outside"), ErrorKind::permission);
  EXPECT_EQ(kind("allowed/link"), ErrorKind::permission);
  EXPECT_EQ(kind("absent"), ErrorKind::permission);
  EXPECT_EQ(kind("allowed"), ErrorKind::permission);
  EXPECT_EQ(kind("no/such/folder"), ErrorKind::permission);
  EXPECT_FALSE(check_monitor_allowed("", folder / "allowed/deep/there"));
}

TEST(QmpVerdict, IsThatOfTheTable) {
  using enum VmState;
  using enum QmpVerdict;
  const struct {
    bool was_decided;
    std::optional<VmState> source;
    std::optional<VmState> target;
    QmpVerdict verdict;
  } rows[] = {
      // Never told to run: whatever anybody says.
      {false, running, paused, back},
      {false, paused, paused, back},
      {false, paused, std::nullopt, back},
      {false, absent, absent, back},
      {true, paused, running, committed},
      {true, absent, running, committed},
      {true, std::nullopt, running, committed},
      {true, running, running, split},
      {true, paused, paused, forward},
      {true, absent, paused, forward},
      {true, running, paused, back},
      {true, running, absent, back},
      // It may have run, and is gone or silent.
      {true, paused, absent, unknown},
      {true, paused, crashed, unknown},
      {true, paused, std::nullopt, unknown},
      {true, running, std::nullopt, unknown},
      {true, std::nullopt, paused, unknown},
      {true, std::nullopt, std::nullopt, unknown},
  };
  for (const auto& row : rows)
    EXPECT_EQ(decide_by_qmp(row.was_decided, row.source, row.target), row.verdict)
        << row.was_decided << " " << (row.source ? to_string(*row.source) : "silent") << " "
        << (row.target ? to_string(*row.target) : "silent");
}

QmpMachine a_machine(std::string status, std::string image) {
  return {.name = "a",
          .version = "7.2.22",
          .status = std::move(status),
          .machine_type = "pc-q35-7.2",
          .cpu_model = "qemu64",
          .accelerator = "kvm",
          .memory_bytes = 128 << 20,
          .vcpus = 2,
          .disks = {{.names = {"vda", "node-a"},
                     .node = "node-a",
                     .filename = std::move(image),
                     .format = "raw",
                     .size_bytes = 1 << 20}}};
}

QmpPreflightFacts good_facts() {
  return {.request = a_request(),
          .here = a_machine("running", "/images/a.raw"),
          .there = a_machine("inmigrate", "/images/b.raw"),
          .targets = {TargetDiskFacts{.exists = true, .size_bytes = 1 << 20}}};
}

TEST(QmpPreflight, NothingSpeaksAgainstTwoThatAreAlike) {
  EXPECT_FALSE(has_blocker(examine_by_qmp(good_facts())));
  QmpPreflightFacts other_name = good_facts();
  other_name.request.disks[0].target = "node-a";
  EXPECT_FALSE(has_blocker(examine_by_qmp(other_name)));
}

TEST(QmpPreflight, EachDifferenceIsFound) {
  const struct {
    std::string_view code;
    std::function<void(QmpPreflightFacts&)> change;
  } rows[] = {
      {"not-running", [](auto& facts) { facts.here.status = "paused"; }},
      {"block-job", [](auto& facts) { facts.here.jobs = 1; }},
      {"in-migration", [](auto& facts) { facts.here.migration = "active"; }},
      {"no-target",
       [](auto& facts) {
         facts.there.reset();
         facts.there_problem = fail(ErrorKind::gone, "connect");
       }},
      {"not-waiting", [](auto& facts) { facts.there->status = "running"; }},
      {"not-waiting", [](auto& facts) { facts.there->migration = "failed"; }},
      {"machine-type-differs", [](auto& facts) { facts.there->machine_type = "pc-q35-8.0"; }},
      {"cpu-differs", [](auto& facts) { facts.there->cpu_model = "host"; }},
      {"vcpus-differs", [](auto& facts) { facts.there->vcpus = 3; }},
      {"memory-differs", [](auto& facts) { facts.there->memory_bytes *= 2; }},
      {"accelerator-differs", [](auto& facts) { facts.there->accelerator = "tcg"; }},
      {"no-disk", [](auto& facts) { facts.request.disks[0].target = "vdx"; }},
      {"disk-not-named", [](auto& facts) { facts.request.disks[0].target = "vdx"; }},
      {"no-disks", [](auto& facts) { facts.request.disks.clear(); }},
      {"target-network", [](auto& facts) { facts.request.disks[0].uri = "nbd://host/x"; }},
      {"disk-missing-there", [](auto& facts) { facts.there->disks.clear(); }},
      {"target-size", [](auto& facts) { facts.there->disks[0].size_bytes /= 2; }},
      {"disk-read-only-there", [](auto& facts) { facts.there->disks[0].is_read_only = true; }},
      {"target-format", [](auto& facts) { facts.there->disks[0].format = "qcow2"; }},
      {"target-place", [](auto& facts) { facts.there->disks[0].filename = "/images/c.raw"; }},
      {"target-unusable", [](auto& facts) { facts.targets[0].problem = "it exists already"; }},
      {"disk-name",
       [](auto& facts) {
         facts.request.disks[0].target = "a_b";
         for (auto* machine : {&facts.here, &*facts.there}) machine->disks[0].names.push_back("a_b");
       }},
  };
  for (const auto& row : rows) {
    QmpPreflightFacts facts = good_facts();
    row.change(facts);
    const auto found = examine_by_qmp(facts);
    const auto is_it = [&row](const Finding& finding) {
      return finding.code == row.code && finding.severity == Severity::blocker && !finding.remedy.empty();
    };
    EXPECT_TRUE(std::ranges::any_of(found, is_it)) << row.code;
  }
}

TEST(QmpPreflight, ADiskThatIsOnlyReadNeedsNoTarget) {
  QmpPreflightFacts facts = good_facts();
  facts.here.disks.push_back({.names = {"cd0"}, .node = "cd", .is_read_only = true});
  facts.here.disks.push_back({.names = {"cd1"}});  // without a medium
  EXPECT_FALSE(has_blocker(examine_by_qmp(facts)));
}

TEST(QmpPreflight, RoutesFollowFromTheFormat) {
  MoveRequest request = a_request();
  auto disks = must(choose_disks_by_qmp(request, good_facts().here));
  ASSERT_EQ(disks.size(), 1u);
  EXPECT_EQ(disks[0].route, DiskRoute::gateway);
  EXPECT_EQ(disks[0].size_bytes, 1u << 20);
  EXPECT_EQ(disks[0].drive, "drive-vda");
  request.disks[0].uri = "/images/b.qcow2";
  EXPECT_EQ(must(choose_disks_by_qmp(request, good_facts().here))[0].route, DiskRoute::through);
}

TEST(TargetMachineValues, EveryFieldComesBack) {
  const TargetMachineCall call{"m-1", "/run/qemu/b", MachineVerb::receive, "tcp:h:1", 4, true};
  const auto call_back = must(parse_target_machine_call(to_json(call)));
  EXPECT_EQ(to_json(call_back), to_json(call));
  EXPECT_EQ(call_back.verb, MachineVerb::receive);
  EXPECT_EQ(call_back.monitor, "/run/qemu/b");
  const TargetMachineAnswer answer{VmState::paused, good_facts().here};
  const auto answer_back = must(parse_target_machine_answer(to_json(answer)));
  EXPECT_EQ(to_json(answer_back), to_json(answer));
  EXPECT_EQ(answer_back.state, VmState::paused);
  EXPECT_EQ(answer_back.machine.disks.at(0).names.at(1), "node-a");
  EXPECT_FALSE(parse_target_machine_call(R"({"verb":"human-monitor-command"})"));
  EXPECT_FALSE(parse_target_machine_answer(R"({"state":"elsewhere"})"));
}

}  // namespace
}  // namespace diskferry
