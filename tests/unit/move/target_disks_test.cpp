// The disks that moves bring to a host: made once, offered to one client, taken up after a failure, and never
// removed while they are somebody's.
#include "gateway/move/target_disks.hpp"

#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/support/pattern.hpp"
#include "tests/unit/nbd/test_server.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/stat.h>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
using test::runtime;
namespace fs = std::filesystem;

template <class T>
ErrorKind kind_of(const Result<T>& result) {
  EXPECT_FALSE(result);
  return result ? ErrorKind::internal : result.error().kind();
}

Task<Result<void>> stop_disks(TargetDisks& disks) {
  co_await disks.stop();
  co_return Result<void>{};
}

class TargetDisksTest : public testing::Test {
 protected:
  TargetDisksTest() {
    fs::create_directories(state_folder());
    server.start();
    begin();
  }
  ~TargetDisksTest() override {
    end();
    (void)server.stop();
  }
  std::string state_folder() const { return folder / "state"; }
  void begin() {
    disks = std::make_unique<TargetDisks>(
        runtime().context(), *server.server,
        TargetDisksOptions{
            .state_folder = state_folder(), .move_folder = folder / "moves", .clients_have_names = false});
  }
  void end() {
    if (disks) must(run(stop_disks(*disks)));
    disks.reset();
  }
  /// As after a crash or a restart of the gateway: only the records are left.
  Result<void> restart() {
    end();
    begin();
    return run(disks->start());
  }
  TargetDiskRequest request(std::string move = "m-1", std::string disk = "vda") const {
    return {.move = std::move(move),
            .machine = "machine-1",
            .disk = std::move(disk),
            .uri = path,
            .format = "raw",
            .size_bytes = mib};
  }
  Result<PreparedDisk> prepare(const TargetDiskRequest& wanted, const std::string& client = "a") {
    return run(disks->prepare(wanted, client));
  }
  Result<void> finish(TargetEnd how, const std::string& move = "m-1", const std::string& client = "a") {
    return run(disks->finish(move, how, client));
  }
  void write_pattern(const PreparedDisk& disk) {
    auto device = must(run(open_storage(
        runtime().context(), must(ImageUri::parse(server.uri(disk.export_name))), {.writable = true})));
    EXPECT_EQ(device->size_bytes(), mib);
    must(run(device->write(4096, test::pattern(4096, 8192), {})));
    must(run(device->flush()));
    must(run(device->close()));
  }
  bool holds_pattern() const {
    std::ifstream file(path, std::ios::binary);
    std::vector<std::byte> bytes(8192);
    file.seekg(4096);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return file.good() && test::first_difference(bytes, 4096) == SIZE_MAX;
  }
  bool is_offered(const std::string& name) {
    auto device =
        run(open_storage(runtime().context(), must(ImageUri::parse(server.uri(name))), {.writable = false}));
    if (device) must(run((*device)->close()));
    return device.has_value();
  }
  void make_file(std::uint64_t size) {
    std::ofstream(path, std::ios::binary).close();
    fs::resize_file(path, size);
  }
  std::size_t record_files() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(state_folder())) {
      (void)entry;
      ++count;
    }
    return count;
  }

  test::TemporaryFolder folder;
  const std::string path = folder / "disk.raw";
  test::TestServer server;
  std::unique_ptr<TargetDisks> disks;
};

TEST_F(TargetDisksTest, MakesOffersAndKeeps) {
  const auto made = must(prepare(request()));
  EXPECT_EQ(made.export_name, "m-1-vda");
  EXPECT_TRUE(made.was_created);
  EXPECT_FALSE(made.is_taken_up);
  EXPECT_TRUE(made.starts_zeroed);
  EXPECT_EQ(fs::file_size(path), mib);
  EXPECT_TRUE(fs::is_directory(folder / "moves/m-1"));
  ASSERT_EQ(disks->records().size(), 1u);
  write_pattern(made);
  must(finish(TargetEnd::keep));
  EXPECT_FALSE(is_offered("m-1-vda"));
  EXPECT_TRUE(holds_pattern());
  EXPECT_TRUE(disks->records().empty());
  EXPECT_EQ(record_files(), 0u);
  EXPECT_FALSE(fs::exists(folder / "moves/m-1"));
  must(finish(TargetEnd::remove));
  EXPECT_TRUE(fs::exists(path)) << "what was kept is the machine's";
}

TEST_F(TargetDisksTest, PreparingIsRepeatableForTheSameClientAndTheSameDisk) {
  const auto first = must(prepare(request()));
  auto second = must(prepare(request()));
  EXPECT_TRUE(first.starts_zeroed);
  EXPECT_FALSE(second.starts_zeroed) << "it may have been written to meanwhile";
  second.starts_zeroed = true;
  EXPECT_EQ(to_json(second), to_json(first));
  EXPECT_EQ(kind_of(prepare(request(), "b")), ErrorKind::in_use);
  auto other = request();
  other.uri = folder / "other.raw";
  EXPECT_EQ(kind_of(prepare(other)), ErrorKind::in_use) << "it is offered already, as another file";
  other = request();
  other.size_bytes = 2 * mib;
  EXPECT_EQ(kind_of(prepare(other)), ErrorKind::in_use);
}

TEST_F(TargetDisksTest, AnotherClientTakesNoPartInAMove) {
  (void)must(prepare(request()));
  auto second = request("m-1", "vdb");
  second.uri = folder / "second.raw";
  EXPECT_EQ(kind_of(prepare(second, "b")), ErrorKind::in_use);
  EXPECT_EQ(kind_of(finish(TargetEnd::remove, "m-1", "b")), ErrorKind::permission);
  EXPECT_TRUE(is_offered("m-1-vda")) << "nothing was changed";
  must(finish(TargetEnd::leave));
  EXPECT_EQ(kind_of(prepare(request(), "b")), ErrorKind::in_use) << "also when it is only left";
  must(finish(TargetEnd::remove));
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(TargetDisksTest, WhatIsThereIsRefusedUnlessItMayBeOverwritten) {
  make_file(mib);
  EXPECT_EQ(kind_of(prepare(request())), ErrorKind::already_exists);
  EXPECT_TRUE(disks->records().empty()) << "nothing is left over";
  auto overwriting = request();
  overwriting.overwrite = true;
  EXPECT_FALSE(must(prepare(overwriting)).was_created);
  must(finish(TargetEnd::remove));
  EXPECT_TRUE(fs::exists(path)) << "only what the move made is removed";
}

TEST_F(TargetDisksTest, AFileOfAnotherSizeIsRefused) {
  auto overwriting = request();
  overwriting.overwrite = true;
  fs::create_directories(folder / "moves");
  make_file(mib / 2);
  const auto smaller = prepare(overwriting);
  if (!smaller)
    EXPECT_EQ(smaller.error().kind(), ErrorKind::mismatch);
  else
    EXPECT_EQ(fs::file_size(path), mib);
  must(finish(TargetEnd::remove));
}

TEST_F(TargetDisksTest, AFileThatAnotherMoveWritesIsInUse) {
  (void)must(prepare(request("m-1")));
  auto second = request("m-2");
  second.machine = "machine-2";
  second.overwrite = true;
  EXPECT_EQ(kind_of(prepare(second)), ErrorKind::in_use);
  must(finish(TargetEnd::remove, "m-2"));
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(is_offered("m-1-vda"));
}

TEST_F(TargetDisksTest, RemovingRemovesWhatTheMoveMade) {
  (void)must(prepare(request()));
  must(finish(TargetEnd::remove));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(record_files(), 0u);
}

TEST_F(TargetDisksTest, AMoveThatHasNotEndedIsOfferedAfterARestart) {
  write_pattern(must(prepare(request())));
  must(restart());
  EXPECT_TRUE(is_offered("m-1-vda"));
  const auto again = must(prepare(request()));
  EXPECT_TRUE(again.was_created);
  EXPECT_FALSE(again.starts_zeroed);
  EXPECT_FALSE(again.is_taken_up) << "a gateway that was away cannot say that nobody wrote meanwhile";
  EXPECT_TRUE(holds_pattern());
  EXPECT_EQ(kind_of(prepare(request(), "b")), ErrorKind::in_use);
  must(finish(TargetEnd::remove));
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(TargetDisksTest, WhatIsLeftIsTakenUpByTheSameMachineOnly) {
  write_pattern(must(prepare(request())));
  must(finish(TargetEnd::leave));
  EXPECT_FALSE(is_offered("m-1-vda"));
  must(restart());
  EXPECT_FALSE(is_offered("m-1-vda")) << "what is left is not offered";
  ASSERT_EQ(disks->records().size(), 1u);
  EXPECT_TRUE(disks->records()[0].is_left);
  struct Row {
    const char* name;
    std::string TargetDiskRequest::* field;
    std::string value;
  };
  for (const Row& row : {Row{"another machine", &TargetDiskRequest::machine, "machine-2"},
                         Row{"no machine", &TargetDiskRequest::machine, ""},
                         Row{"another format", &TargetDiskRequest::format, "qcow2"}}) {
    auto other = request("m-2");
    other.*row.field = row.value;
    EXPECT_EQ(kind_of(prepare(other)), ErrorKind::already_exists) << row.name;
    EXPECT_FALSE(must(run(disks->look(other))).problem.empty()) << row.name;
  }
  EXPECT_EQ(must(run(disks->look(request("m-2")))).problem, "");
  const auto taken = must(prepare(request("m-2")));
  EXPECT_TRUE(taken.is_taken_up);
  EXPECT_TRUE(holds_pattern());
}

TEST_F(TargetDisksTest, WhatWasTakenUpIsNotTheEarlierMovesAnyMore) {
  (void)must(prepare(request("m-1")));
  must(finish(TargetEnd::leave, "m-1"));
  EXPECT_TRUE(must(prepare(request("m-2"))).is_taken_up);
  EXPECT_EQ(disks->records().size(), 1u) << "it is listed once";
  must(finish(TargetEnd::remove, "m-1"));
  EXPECT_TRUE(fs::exists(path)) << "the second move writes it";
  must(restart());
  must(finish(TargetEnd::keep, "m-2"));
  must(finish(TargetEnd::remove, "m-1"));
  EXPECT_TRUE(fs::exists(path)) << "it is the machine's disk now";
}

TEST_F(TargetDisksTest, WhatWasTakenUpIsRemovedByTheMoveThatTookIt) {
  (void)must(prepare(request("m-1")));
  must(finish(TargetEnd::leave, "m-1"));
  EXPECT_TRUE(must(prepare(request("m-2"))).was_created) << "by moves of this machine";
  must(finish(TargetEnd::remove, "m-2"));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(record_files(), 0u);
}

TEST_F(TargetDisksTest, TheNextMoveOfAMachineEndsOneThatNobodyEnded) {
  write_pattern(must(prepare(request("m-1"))));
  EXPECT_EQ(kind_of(prepare(request("m-2"), "b")), ErrorKind::in_use) << "another client's word is none";
  EXPECT_TRUE(is_offered("m-1-vda"));
  EXPECT_TRUE(must(prepare(request("m-2"))).was_created);
  EXPECT_FALSE(is_offered("m-1-vda"));
  EXPECT_TRUE(holds_pattern());
  must(finish(TargetEnd::remove, "m-1"));
  EXPECT_TRUE(fs::exists(path)) << "it is the second move's";
  must(finish(TargetEnd::remove, "m-2"));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(record_files(), 0u);
}

TEST_F(TargetDisksTest, AnEndThatCannotBeWrittenDownIsRepeated) {
  for (const TargetEnd how : {TargetEnd::leave, TargetEnd::keep}) {
    SCOPED_TRACE(to_string(how));
    (void)must(prepare(request()));
    fs::rename(state_folder(), folder / "away");
    std::ofstream(state_folder()).close();
    EXPECT_FALSE(finish(how));
    EXPECT_EQ(disks->records().size(), 1u) << "it is not forgotten";
    fs::remove(state_folder());
    fs::rename(folder / "away", state_folder());
    must(finish(how));
    EXPECT_FALSE(is_offered("m-1-vda"));
    EXPECT_TRUE(fs::exists(path));
  }
  EXPECT_EQ(record_files(), 0u);
}

TEST_F(TargetDisksTest, WhatIsTheMachinesIsNeitherOfferedNorRemovedByAnyLaterCall) {
  (void)must(prepare(request()));
  end();
  const std::string record = state_folder() + "/m-1.json";
  std::stringstream text;
  text << std::ifstream(record).rdbuf();
  std::string kept = text.str();
  const std::string before = R"("created":true,"left":false,"kept":false)";
  ASSERT_NE(kept.find(before), std::string::npos) << kept;
  kept.replace(kept.find(before), before.size(), R"("created":false,"left":false,"kept":true)");
  std::ofstream(record) << kept;
  begin();
  must(run(disks->start()));
  EXPECT_FALSE(is_offered("m-1-vda"));
  EXPECT_EQ(record_files(), 0u);
  must(finish(TargetEnd::remove));
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(TargetDisksTest, LookingChangesNothing) {
  const auto facts = must(run(disks->look(request())));
  EXPECT_FALSE(facts.exists);
  EXPECT_EQ(facts.problem, "");
  EXPECT_GT(facts.space_available_bytes, 0u);
  EXPECT_FALSE(fs::exists(path));
  make_file(mib);
  const auto there = must(run(disks->look(request())));
  EXPECT_TRUE(there.exists);
  EXPECT_EQ(there.size_bytes, mib);
  EXPECT_FALSE(there.identity.empty());
  EXPECT_FALSE(there.problem.empty());
  auto nowhere = request();
  nowhere.uri = folder / "none/disk.raw";
  EXPECT_FALSE(must(run(disks->look(nowhere))).problem.empty());
  EXPECT_TRUE(disks->records().empty());
}

TEST_F(TargetDisksTest, AMoveWithoutDisksHereGetsItsFolderOnly) {
  auto none = request();
  none.uri.clear();
  EXPECT_EQ(must(prepare(none)).export_name, "");
  EXPECT_TRUE(fs::is_directory(folder / "moves/m-1"));
  EXPECT_EQ(fs::status(folder / "moves/m-1").permissions() & fs::perms::all, fs::perms::owner_all);
  must(finish(TargetEnd::keep));
  EXPECT_FALSE(fs::exists(folder / "moves/m-1"));
}

TEST_F(TargetDisksTest, HostileIdsAreRefusedEverywhere) {
  for (const std::string& id :
       {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
        std::string("-a"), std::string("a b"), std::string("a\0b", 3), std::string("a\n"),
        std::string("\xc3\xa4"), std::string(65, 'a')}) {
    EXPECT_EQ(kind_of(check_move_id(id)), ErrorKind::invalid_argument) << id;
    EXPECT_EQ(kind_of(prepare(request(id))), ErrorKind::invalid_argument) << id;
    EXPECT_EQ(kind_of(prepare(request("m-1", id))), ErrorKind::invalid_argument) << id;
    EXPECT_EQ(kind_of(finish(TargetEnd::remove, id)), ErrorKind::invalid_argument) << id;
  }
  must(check_move_id(std::string(64, 'a')));
  must(check_move_id("0-9-az-AZ"));
}

TEST_F(TargetDisksTest, HostileRecordsAreRefused) {
  const auto record = [](const TargetDiskRequest& of) {
    return R"({"version":1,"disks":[{"request":)" +
           ("\"" +
            [&] {
              std::string quoted;
              for (const char c : to_json(of))
                quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
              return quoted;
            }() +
            "\"") +
           R"(,"client":"a","created":true,"left":true}]})";
  };
  struct Row {
    const char* name;
    std::string text;
    ErrorKind expected;
  };
  for (const Row& row :
       {Row{"empty", "", ErrorKind::invalid_argument},
        Row{"cut short", R"({"version":1,"disks":[)", ErrorKind::invalid_argument},
        Row{"another version", R"({"version":9})", ErrorKind::unsupported},
        Row{"an id that leads out", record(request("../m-1")), ErrorKind::invalid_argument},
        Row{"a disk that leads out", record(request("m-1", "../a")), ErrorKind::invalid_argument},
        Row{"another move's name", record(request("m-2")), ErrorKind::corrupt},
        Row{"too long", std::string((1u << 20) + 1, ' '), ErrorKind::too_large}}) {
    std::ofstream(state_folder() + "/m-1.json") << row.text;
    EXPECT_EQ(kind_of(restart()), row.expected) << row.name;
  }
  std::ofstream(state_folder() + "/m-1.json") << record(request());
  must(restart());
  EXPECT_EQ(disks->records().size(), 1u);
}

}  // namespace
}  // namespace diskferry
