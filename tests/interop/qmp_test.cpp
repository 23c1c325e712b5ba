// The monitor's client and a real QEMU without a machine.
#include "gateway/hypervisor/qmp.hpp"

#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

class QmpOfQemu : public testing::Test {
 protected:
  QmpOfQemu()
      : socket_(folder_ / "qmp"),
        qemu_({"qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-qmp",
               "unix:" + socket_ + ",server=on,wait=off"}) {
    EXPECT_TRUE(test::wait_until([this] { return test::is_listening(socket_); }));
  }
  static Task<Result<std::unique_ptr<Qmp>>> connect(std::string socket) {
    return Qmp::connect(test::runtime().context().clock, std::move(socket));
  }
  test::TemporaryFolder folder_;
  std::string socket_;
  test::ChildProcess qemu_;
};

Task<Result<void>> talk(Qmp& monitor) {
  EXPECT_GE(monitor.version().major, 7U);
  DISKFERRY_CO_CHECK(co_await monitor.execute("query-status"));
  const auto from = monitor.event_count();
  for (const char* const node : {"a", "b"}) {
    DISKFERRY_CO_CHECK(co_await monitor.execute(
        "blockdev-add", {{"driver", "null-co"}, {"node-name", node}, {"size", 65536}}));
  }
  DISKFERRY_CO_CHECK(co_await monitor.execute(
      "blockdev-mirror", {{"job-id", "copy"}, {"device", "a"}, {"target", "b"}, {"sync", "full"}}));
  DISKFERRY_CO_CHECK(co_await monitor.wait_event(
      from, [](const QmpEvent& event) { return event.name == "BLOCK_JOB_READY" && event.qemu_us > 0; },
      "the copy", std::chrono::seconds(60)));
  DISKFERRY_CO_CHECK(co_await monitor.execute("job-cancel", {{"id", "copy"}}));
  DISKFERRY_CO_CHECK(co_await monitor.wait_event(
      from, [](const QmpEvent& event) { return event.name == "BLOCK_JOB_CANCELLED"; }, "the copy's end",
      std::chrono::seconds(60)));
  for (const char* const node : {"a", "b"}) {
    DISKFERRY_CO_CHECK(co_await monitor.execute("blockdev-del", {{"node-name", node}}));
  }
  EXPECT_EQ((co_await monitor.execute("no-such-command")).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ((co_await monitor.execute("blockdev-del", {{"node-name", "none"}})).error().kind(),
            ErrorKind::not_found);
  EXPECT_EQ((co_await monitor.execute("migrate")).error().kind(), ErrorKind::invalid_argument);
  const auto schema = co_await monitor.execute("query-qmp-schema");
  EXPECT_TRUE(schema);
  if (schema) EXPECT_GT(schema->as_array().size(), 100U);
  co_return Result<void>{};
}
Task<Result<void>> talk_and_close(std::string socket) {
  DISKFERRY_CO_TRY(const auto monitor,
                   co_await Qmp::connect(test::runtime().context().clock, std::move(socket)));
  auto talked = co_await talk(*monitor);
  co_await monitor->close();
  co_return talked;
}
TEST_F(QmpOfQemu, TalksAndConnectsAgain) {
  must(run(talk_and_close(socket_)));
  must(run(talk_and_close(socket_)));
}

Task<Result<void>> quit_and_see(std::string socket) {
  DISKFERRY_CO_TRY(const auto monitor,
                   co_await Qmp::connect(test::runtime().context().clock, std::move(socket)));
  (void)co_await monitor->execute("quit");
  const auto lost = co_await monitor->wait_event(
      monitor->event_count() + 1000, [](const QmpEvent&) { return true; }, "nothing",
      std::chrono::seconds(60));
  EXPECT_EQ(lost.error().kind(), ErrorKind::gone);
  co_await monitor->close();
  co_return Result<void>{};
}
TEST_F(QmpOfQemu, SeesItEnd) {
  must(run(quit_and_see(socket_)));
  EXPECT_EQ(qemu_.wait(), 0);
}
}  // namespace
}  // namespace diskferry
