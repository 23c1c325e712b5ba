// A move between two real QEMUs by their monitors, with an nbdkit as the target; and moves that fail at each
// place.
#include "gateway/hypervisor/qmp_migration.hpp"

#include "diskferry/task_group.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/nbd_server.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <fstream>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;
constexpr std::size_t disk_bytes = std::size_t{8} << 20;

void write_file(const std::string& path, std::span<const std::byte> content) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
}
std::vector<std::byte> read_file(const std::string& path) {
  std::vector<std::byte> content(disk_bytes);
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
  return content;
}

test::ChildProcess start_qemu(const std::string& disk, const std::string& monitor, bool is_destination) {
  std::vector<std::string> arguments{"qemu-system-x86_64",
                                     "-machine",
                                     "pc,accel=tcg",
                                     "-m",
                                     "32",
                                     "-nodefaults",
                                     "-display",
                                     "none",
                                     "-blockdev",
                                     "driver=file,node-name=file0,filename=" + disk,
                                     "-blockdev",
                                     "driver=raw,node-name=disk0,file=file0",
                                     "-device",
                                     "virtio-blk-pci,drive=disk0",
                                     "-qmp",
                                     "unix:" + monitor + ",server=on,wait=off"};
  if (is_destination) arguments.insert(arguments.end(), {"-S", "-incoming", "defer"});
  test::ChildProcess qemu(arguments);
  EXPECT_TRUE(test::wait_until([&monitor] { return test::is_listening(monitor); }, std::chrono::seconds(60)));
  return qemu;
}

/// What goes wrong, and where the machine must run then.
struct Case {
  std::string_view name;
  QmpStep trouble;
  enum class Kind : std::uint8_t {
    none,
    hook_fails,
    destination_dies,
    target_dies,
    cancelled,
    run_is_refused,  ///< the destination says no, and does not run
    answer_is_lost   ///< it runs, and nobody hears of it
  } kind;
  QmpWhere where;
};
using Kind = Case::Kind;
const Case cases[] = {
    {"Moves", QmpStep::resume, Kind::none, QmpWhere::destination},
    {"BarrierFails", QmpStep::barrier, Kind::hook_fails, QmpWhere::source},
    {"CommitFails", QmpStep::commit, Kind::hook_fails, QmpWhere::source},
    {"TargetDiesBeforeTheCopy", QmpStep::add_targets, Kind::target_dies, QmpWhere::source},
    {"TargetDiesBeforeTheMirrorsEnd", QmpStep::end_mirrors, Kind::target_dies, QmpWhere::source},
    {"DestinationDiesBeforeTheMemory", QmpStep::start_memory, Kind::destination_dies, QmpWhere::source},
    {"DestinationDiesBeforeTheHandOver", QmpStep::hand_over, Kind::destination_dies, QmpWhere::source},
    {"DestinationDiesBeforeTheCommit", QmpStep::commit, Kind::destination_dies, QmpWhere::unknown},
    {"CancelledWhileCopying", QmpStep::start_mirrors, Kind::cancelled, QmpWhere::source},
    {"CancelledWhileStopped", QmpStep::barrier, Kind::cancelled, QmpWhere::source},
    {"TheDestinationRefusesToRun", QmpStep::resume, Kind::run_is_refused, QmpWhere::source},
    {"TheDestinationRunsAndCannotSaySo", QmpStep::resume, Kind::answer_is_lost, QmpWhere::destination},
    {"CancelledAtTheCommit", QmpStep::commit, Kind::cancelled, QmpWhere::destination},
};

/// A real one, but for what goes wrong when it is to run.
class Destination final : public QmpDestination {
 public:
  Destination(Qmp& monitor, Kind kind) : real_(test::runtime().context().clock, monitor), kind_(kind) {}
  Task<Result<void>> receive(QmpIncoming incoming) override { return real_.receive(std::move(incoming)); }
  Task<Result<void>> wait_for_arrival(Duration limit) override { return real_.wait_for_arrival(limit); }
  Task<Result<void>> resume(Duration limit) override {
    if (kind_ == Kind::run_is_refused) co_return unexpected(fail(ErrorKind::io, "open the disk"));
    DISKFERRY_CO_CHECK(co_await real_.resume(limit));
    if (kind_ == Kind::answer_is_lost) co_return unexpected(fail(ErrorKind::gone, "hear of it"));
    co_return Result<void>{};
  }
  Task<Result<VmState>> state() override { return real_.state(); }
  Task<Result<void>> end() override { return real_.end(); }

 private:
  QmpIncomingMonitor real_;
  const Kind kind_;
};

class QmpMove : public testing::TestWithParam<Case> {
 protected:
  QmpMove() {
    write_file(folder_ / "source.raw", content_);
    write_file(folder_ / "target.raw", std::vector<std::byte>(disk_bytes));
    target_.emplace(
        std::vector<std::string>{"nbdkit", "-f", "-U", "{socket}", "file", folder_ / "target.raw"});
    source_.emplace(start_qemu(folder_ / "source.raw", folder_ / "source.qmp", false));
    destination_.emplace(start_qemu(folder_ / "target.raw", folder_ / "destination.qmp", true));
  }
  QmpMigrationPlan plan() const {
    return {.disks = {{.device = "disk0",
                       .job = "copy0",
                       .target_node = "target0",
                       .target = {{"driver", "nbd"},
                                  {"server", {{"type", "unix"}, {"path", target_->socket()}}},
                                  {"export", ""}}}},
            .incoming = {.listen = "unix:" + (folder_ / "memory")},
            .switchover_limit = std::chrono::seconds(60)};
  }
  Result<void> at_hook(QmpStep step) const {
    if (GetParam().kind == Kind::hook_fails && GetParam().trouble == step)
      return unexpected(fail(ErrorKind::no_space, "make durable"));
    return {};
  }
  void at_step(QmpStep step, TaskGroup& moving) {
    if (step != GetParam().trouble) return;
    if (GetParam().kind == Kind::destination_dies) destination_->kill();
    if (GetParam().kind == Kind::target_dies) target_->process().kill();
    if (GetParam().kind == Kind::cancelled) moving.cancel();
  }

  const std::vector<std::byte> content_ = test::pattern(0, disk_bytes);
  test::TemporaryFolder folder_;
  std::optional<test::NbdServer> target_;
  std::optional<test::ChildProcess> source_;
  std::optional<test::ChildProcess> destination_;

 public:
  static Task<Result<void>> hook(QmpMove& self, QmpStep step) { co_return self.at_hook(step); }
  static Task<Result<void>> before(QmpMove& self, QmpStep step, TaskGroup& moving) {
    self.at_step(step, moving);
    co_return Result<void>{};
  }
  static Task<Result<void>> move(QmpMove& self, Qmp& source, Qmp& monitor, TaskGroup& moving,
                                 QmpMigrationEnd& end) {
    QmpMigrationHooks hooks{.barrier = [&self] { return hook(self, QmpStep::barrier); },
                            .commit = [&self] { return hook(self, QmpStep::commit); },
                            .before_step = [&](QmpStep step) { return before(self, step, moving); }};
    Destination destination(monitor, GetParam().kind);
    end = co_await migrate_by_qmp(test::runtime().context().clock, source, destination, self.plan(),
                                  std::move(hooks));
    co_return Result<void>{};
  }
  static Task<Result<void>> move_and_look(QmpMove& self, QmpMigrationEnd& end, std::string& source_status) {
    Clock& clock = test::runtime().context().clock;
    DISKFERRY_CO_TRY(const auto source, co_await Qmp::connect(clock, self.folder_ / "source.qmp"));
    DISKFERRY_CO_TRY(const auto destination, co_await Qmp::connect(clock, self.folder_ / "destination.qmp"));
    TaskGroup moving(co_await boost::asio::this_coro::executor);
    moving.spawn(move(self, *source, *destination, moving, end));
    (void)co_await moving.join();
    DISKFERRY_CO_TRY(const auto status, co_await source->execute("query-status"));
    source_status = status.at("status").as_string();
    DISKFERRY_CO_TRY(const auto jobs, co_await source->execute("query-jobs"));
    EXPECT_TRUE(jobs.as_array().empty()) << "a mirror is left";
    co_await destination->close();
    co_await source->close();
    co_return Result<void>{};
  }
};

TEST_P(QmpMove, EndsWhereItShould) {
  QmpMigrationEnd end;
  std::string source_status;
  must(run(move_and_look(*this, end, source_status)));
  const auto message = end.error ? end.error->message() : "no error";
  EXPECT_EQ(end.where, GetParam().where) << message;
  const bool is_lost = GetParam().kind == Kind::answer_is_lost;
  EXPECT_EQ(end.error.has_value(), is_lost || GetParam().where != QmpWhere::destination) << message;
  EXPECT_EQ(source_status, GetParam().where == QmpWhere::source ? "running" : "postmigrate") << message;
  if (GetParam().where == QmpWhere::destination) {
    EXPECT_EQ(end.last_step, QmpStep::resume);
    EXPECT_EQ(read_file(folder_ / "target.raw"), content_);
    EXPECT_TRUE(destination_->is_running());
  } else {
    EXPECT_TRUE(test::wait_until([this] { return !destination_->is_running(); }, std::chrono::seconds(60)));
  }
}
INSTANTIATE_TEST_SUITE_P(Table, QmpMove, testing::ValuesIn(cases),
                         [](const auto& row) { return std::string(row.param.name); });
}  // namespace
}  // namespace diskferry
