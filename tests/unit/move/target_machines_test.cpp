// What a gateway lets another one do with the QEMUs of its host: nothing to a monitor outside the folder, and
// nothing but looking without a move that was prepared for it.
#include "gateway/move/target_machines.hpp"

#include "diskferry/units.hpp"
#include "tests/unit/nbd/test_server.hpp"

#include <filesystem>
#include <optional>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;

Task<Result<void>> stop_disks(TargetDisks& disks) {
  co_await disks.stop();
  co_return Result<void>{};
}

class TargetMachinesTest : public testing::Test {
 protected:
  TargetMachinesTest() {
    std::filesystem::create_directories(folder / "qemu");
    std::filesystem::create_directories(folder / "state");
    server.start();
    disks.emplace(
        runtime().context(), *server.server,
        TargetDisksOptions{
            .state_folder = folder / "state", .move_folder = folder / "moves", .clients_have_names = false});
    machines.emplace(
        runtime().context(), *disks,
        TargetMachinesOptions{.sockets_folder = folder / "qemu", .move_folder = folder / "moves"});
  }
  ~TargetMachinesTest() override {
    must(run(stop_disks(*disks)));
    (void)server.stop();
  }
  void prepare(const std::string& monitor) {
    must(run(disks->prepare({.move = "m-1",
                             .machine = "machine",
                             .disk = "vda",
                             .uri = folder / "disk.raw",
                             .format = "raw",
                             .size_bytes = mib,
                             .monitor = monitor},
                            "a")));
  }
  /// What it is refused with; nullopt: it is not.
  std::optional<ErrorKind> refused(MachineVerb verb, const std::string& monitor,
                                   const std::string& client = "a", const std::string& move = "m-1") {
    const auto answer = run(machines->call({.move = move, .monitor = monitor, .verb = verb}, client));
    return answer ? std::optional<ErrorKind>() : answer.error().kind();
  }

  test::TemporaryFolder folder;
  test::TestServer server;
  std::optional<TargetDisks> disks;
  std::optional<TargetMachines> machines;
};

constexpr std::array all_verbs{MachineVerb::describe, MachineVerb::receive, MachineVerb::arrived,
                               MachineVerb::resume,   MachineVerb::state,   MachineVerb::end};

TEST_F(TargetMachinesTest, AMonitorOutsideTheFolderIsNeverOpened) {
  prepare(folder / "elsewhere");
  for (const MachineVerb verb : all_verbs)
    EXPECT_EQ(refused(verb, folder / "elsewhere"), ErrorKind::permission) << to_string(verb);
}

TEST_F(TargetMachinesTest, NothingIsDoneWithoutAMoveThatNamesTheMonitor) {
  prepare(folder / "qemu/vm");
  for (const MachineVerb verb : {MachineVerb::state, MachineVerb::end}) {
    EXPECT_EQ(refused(verb, folder / "qemu/other"), ErrorKind::permission) << to_string(verb);
    EXPECT_EQ(refused(verb, folder / "qemu/vm", "another client"), ErrorKind::permission) << to_string(verb);
    EXPECT_EQ(refused(verb, folder / "qemu/vm", "a", "m-2"), ErrorKind::permission) << to_string(verb);
  }
}

TEST_F(TargetMachinesTest, ThatNobodyIsThereIsAnAnswer) {
  prepare(folder / "qemu/vm");
  const auto state =
      run(machines->call({.move = "m-1", .monitor = folder / "qemu/vm", .verb = MachineVerb::state}, "a"));
  EXPECT_EQ(must(state).state, VmState::absent);
  EXPECT_EQ(refused(MachineVerb::end, folder / "qemu/vm"), std::nullopt);
  EXPECT_EQ(refused(MachineVerb::resume, folder / "qemu/vm"), ErrorKind::not_found);
  EXPECT_EQ(refused(MachineVerb::describe, folder / "qemu/vm"), ErrorKind::not_found);
}

TEST_F(TargetMachinesTest, AGatewayThatIsToldOfNoFolderOpensNone) {
  TargetMachines none(runtime().context(), *disks, {});
  const auto asked = run(none.call({.monitor = folder / "qemu/vm", .verb = MachineVerb::describe}, "a"));
  ASSERT_FALSE(asked);
  EXPECT_EQ(asked.error().kind(), ErrorKind::permission);
  EXPECT_FALSE(asked.error().remedy().empty());
}

}  // namespace
}  // namespace diskferry
