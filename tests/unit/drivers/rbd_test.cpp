// The pure parts of the RBD driver: URIs in both forms, what the library's results mean, what is allocated,
// what a monitor says of its space, and how calls that block take turns and are stopped.
#include "diskferry/task_group.hpp"
#include "drivers/rbd/allocation.hpp"
#include "drivers/rbd/blocking.hpp"
#include "drivers/rbd/cluster.hpp"
#include "drivers/rbd/endpoint.hpp"
#include "drivers/rbd/status.hpp"
#include "tests/support/test_runtime.hpp"

#include <cerrno>
#include <latch>
#include <thread>

#include <gtest/gtest.h>

namespace diskferry::rbd {
namespace {
using test::must;

Result<Endpoint> endpoint(const std::string& text) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  return parse_endpoint(uri);
}

TEST(RbdEndpoint, TakesPoolNamespaceImageAndSnapshot) {
  const Endpoint one = must(endpoint("rbd://pool/disk"));
  EXPECT_EQ(one.pool, "pool");
  EXPECT_EQ(one.name_space, "");
  EXPECT_EQ(one.image, "disk");
  EXPECT_EQ(one.snapshot, "");
  EXPECT_EQ(one.user, "admin");
  EXPECT_EQ(one.conf, "");
  const Endpoint all = must(endpoint(
      "rbd://pool/tenant/disk%201@before%20it?conf=/etc/ceph/b.conf&id=mig&keyring=/k&data-pool=ec&"
      "object-size=8M&mon_host=10.0.0.1,10.0.0.2&connect-timeout=3&reconnect-timeout=0.5&in-use-timeout=0"));
  EXPECT_EQ(all.name_space, "tenant");
  EXPECT_EQ(all.image, "disk 1");
  EXPECT_EQ(all.snapshot, "before it");
  EXPECT_EQ(all.conf, "/etc/ceph/b.conf");
  EXPECT_EQ(all.user, "mig");
  EXPECT_EQ(all.keyring, "/k");
  EXPECT_EQ(all.data_pool, "ec");
  EXPECT_EQ(all.object_bytes, 8u << 20);
  EXPECT_EQ(all.monitors, "10.0.0.1,10.0.0.2");
  EXPECT_EQ(all.connect_limit, std::chrono::seconds(3));
  EXPECT_EQ(all.reconnect_limit, std::chrono::milliseconds(500));
  EXPECT_EQ(all.in_use_limit, Duration::zero());
  EXPECT_EQ(must(endpoint("rbd:///my%20pool/disk")).pool, "my pool") << "a name that no host has";
}

TEST(RbdEndpoint, RefusesWhatMakesNoSense) {
  for (const char* text : {"rbd://pool",
                           "rbd://pool/",
                           "rbd:///disk",
                           "rbd://pool//disk",
                           "rbd://pool/space/",
                           "rbd://pool/a/b/c",
                           "rbd://pool/disk@",
                           "rbd://pool/@snap",
                           "rbd://pool/disk@a@b",
                           "rbd://pool/disk@a/b",
                           "rbd://user@pool/disk",
                           "rbd://pool:6789/disk",
                           "rbd://pool/di%00sk",
                           "rbd://pool/disk?conf=",
                           "rbd://pool/disk?conf=a%00b",
                           "rbd://pool/disk?id=client.admin",
                           "rbd://pool/disk?object-size=3M",
                           "rbd://pool/disk?object-size=2K",
                           "rbd://pool/disk?object-size=64M",
                           "rbd://pool/disk?object-size=x",
                           "rbd://pool/disk?connect-timeout=0",
                           "rbd://pool/disk?reconnect-timeout=0",
                           "rbd://pool/disk?reconnect-timeout=-1",
                           "rbd:///",
                           "rbd://"})
    EXPECT_FALSE(endpoint(text)) << text;
  EXPECT_EQ(endpoint("rbd://pool/" + std::string(1100, 'a')).error().kind(), ErrorKind::too_large);
}

TEST(RbdQemuName, IsTheSameAsItsUri) {
  const Endpoint one = must(endpoint("rbd:pool/disk:id=mig:conf=/etc/ceph/ceph.conf"));
  EXPECT_EQ(one.pool, "pool");
  EXPECT_EQ(one.image, "disk");
  EXPECT_EQ(one.user, "mig");
  EXPECT_EQ(one.conf, "/etc/ceph/ceph.conf");
  EXPECT_EQ(one.name, "rbd://pool/disk?id=mig&conf=/etc/ceph/ceph.conf");
  const Endpoint all =
      must(endpoint(R"(rbd:my pool/tenant/a\:b@s\:1:mon_host=10.0.0.1\:6789\;[\:\:1]\:3300:keyring=/k=1)"));
  EXPECT_EQ(all.pool, "my pool");
  EXPECT_EQ(all.name_space, "tenant");
  EXPECT_EQ(all.image, "a:b");
  EXPECT_EQ(all.snapshot, "s:1");
  EXPECT_EQ(all.monitors, "10.0.0.1:6789;[::1]:3300");
  EXPECT_EQ(all.keyring, "/k=1");
}

TEST(RbdQemuName, ThatIsHostileIsRefusedWithoutShowingIt) {
  for (const char* text :
       {"rbd:", "rbd:pool", "rbd:/", "rbd:pool/", "rbd:/disk", "rbd:pool/disk:", "rbd:pool/disk:conf",
        "rbd:pool/disk:=x", "rbd:pool/disk:conf=", R"(rbd:pool/a\/b/c/d)", R"(rbd:pool/disk\)"})
    EXPECT_FALSE(endpoint(text) && endpoint(text)->image == "disk") << text;
  const auto refused = ImageUri::parse("rbd:pool:key=AQBsecret");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message().find("AQBsecret"), std::string::npos);
  const auto with_key = must(ImageUri::parse("rbd:pool/disk:key=AQBsecret"));
  EXPECT_EQ(with_key.to_string(), "rbd://pool/disk?key=***") << "the registry refuses the key by its name";
}

struct StatusRow {
  int number;
  ErrorKind kind;
};
class RbdStatus : public testing::TestWithParam<StatusRow> {};
TEST_P(RbdStatus, IsAnErrorOfItsKind) {
  const Error error = status_error(-GetParam().number, "write", "rbd://p/i");
  EXPECT_EQ(error.kind(), GetParam().kind);
  EXPECT_FALSE(error.why().empty());
}
INSTANTIATE_TEST_SUITE_P(
    Rows, RbdStatus,
    testing::Values(StatusRow{EPERM, ErrorKind::permission}, StatusRow{EACCES, ErrorKind::permission},
                    StatusRow{ENOENT, ErrorKind::not_found}, StatusRow{EEXIST, ErrorKind::already_exists},
                    StatusRow{ENOSPC, ErrorKind::no_space}, StatusRow{EDQUOT, ErrorKind::no_space},
                    StatusRow{ETIMEDOUT, ErrorKind::gone}, StatusRow{ESHUTDOWN, ErrorKind::in_use},
                    StatusRow{EROFS, ErrorKind::in_use}, StatusRow{EBUSY, ErrorKind::in_use},
                    StatusRow{EIO, ErrorKind::io}, StatusRow{4711, ErrorKind::io}),
    [](const auto& row) { return "Number" + std::to_string(row.param.number); });

TEST(RbdStatusOfConnecting, IsAboutTheUser) {
  EXPECT_EQ(connect_error(-ENOENT, "n", "mig").kind(), ErrorKind::permission) << "its key was not found";
  EXPECT_EQ(connect_error(-EACCES, "n", "mig").kind(), ErrorKind::permission);
  EXPECT_EQ(connect_error(-ETIMEDOUT, "n", "mig").kind(), ErrorKind::gone);
  EXPECT_EQ(connect_error(-EACCES, "n", "a\nb").message().find('\n'), std::string::npos);
}

TEST(RbdStatusThatIsFinal, EndsTheDevice) {
  for (const int number : {ETIMEDOUT, ESHUTDOWN, EROFS}) EXPECT_TRUE(is_final(-number)) << number;
  for (const int number : {ENOSPC, EDQUOT, EIO}) EXPECT_FALSE(is_final(-number)) << number;
}

Extent data(std::uint64_t offset, std::uint64_t length) {
  return {.offset = offset, .length = length};
}
Extent hole(std::uint64_t offset, std::uint64_t length) {
  return {.offset = offset, .length = length, .reads_zero = true, .is_hole = true};
}

TEST(RbdAllocation, FillsTheRestWithHolesAndKeepsToTheRange) {
  Allocation found;
  found.add({100, 50});
  found.add({150, 50});
  found.add({20, 10});
  found.add({300, 0});
  EXPECT_EQ(std::move(Allocation(found)).extents({0, 400}, 100),
            (std::vector{hole(0, 20), data(20, 10), hole(30, 70), data(100, 100), hole(200, 200)}));
  EXPECT_EQ(std::move(Allocation(found)).extents({25, 100}, 100),
            (std::vector{data(25, 5), hole(30, 70), data(100, 25)}));
  EXPECT_EQ(std::move(Allocation(found)).extents({0, 400}, 2), (std::vector{hole(0, 20), data(20, 10)}));
  EXPECT_EQ(std::move(Allocation(found)).extents({210, 10}, 1), (std::vector{hole(210, 10)}));
  EXPECT_EQ(Allocation().extents({5, 7}, 3), (std::vector{hole(5, 7)}));
}

TEST(RbdAllocation, TakesPiecesThatOverlap) {
  Allocation found;
  found.add({0, 100});
  found.add({50, 100});
  found.add({10, 20});
  EXPECT_EQ(std::move(found).extents({0, 200}, 100), (std::vector{data(0, 150), hole(150, 50)}));
}

TEST(RbdFreeSpace, IsThePoolsOwn) {
  const std::string answer =
      R"({"pools":[{"id":1,"stats":{"max_avail":5}},{"id":2,"stats":{"stored":70,"max_avail":1000,"quota_bytes":100}},
          {"id":3,"stats":{"stored":700,"max_avail":1000,"quota_bytes":100}},{"id":4,"stats":{"stored":1,"max_avail":9,"quota_bytes":0}}]})";
  EXPECT_EQ(free_bytes_of(answer, 1), 5u);
  EXPECT_EQ(free_bytes_of(answer, 2), 30u) << "its quota is nearer";
  EXPECT_EQ(free_bytes_of(answer, 3), 0u) << "over its quota";
  EXPECT_EQ(free_bytes_of(answer, 4), 9u) << "without a quota";
  EXPECT_EQ(free_bytes_of(answer, 5), std::nullopt);
}

TEST(RbdFreeSpace, IsUnknownWhereTheAnswerMakesNoSense) {
  for (const char* answer :
       {"", "{", "[]", "null", R"({"pools":7})", R"({"pools":[7]})", R"({"pools":[{"id":1}]})",
        R"({"pools":[{"id":1,"stats":[]}]})", R"({"pools":[{"id":1,"stats":{"max_avail":-1}}]})",
        R"({"pools":[{"id":1,"stats":{"max_avail":"many"}}]})"})
    EXPECT_EQ(free_bytes_of(answer, 1), std::nullopt) << answer;
}

Task<Result<void>> hang(BlockingPool& pool, std::latch& may_end) {
  co_return co_await run_blocking(pool, [&may_end] {
    may_end.wait();
    return Result<void>{};
  });
}
Task<Result<void>> call_of_another_driver(BlockingPool& pool) {
  const auto called = co_await pool.run_or_give_up([] { return true; });
  if (!called.has_value()) co_return unexpected(cancelled_error("call"));
  co_return Result<void>{};
}
/// What each gives beside more calls that hang than there are turns.
struct BesideHungCalls {
  Result<void> other_driver{};
  Result<void> waits_its_turn{};
};
Task<Result<void>> call_beside_hung_ones(BlockingPool& pool, BesideHungCalls& into) {
  Clock& clock = test::runtime().context().clock;
  std::latch may_end(1);
  TaskGroup hung(test::runtime().reactor(0));
  for (std::uint64_t i = 0; i < 2 * calls_max; ++i) hung.spawn(hang(pool, may_end));
  into.waits_its_turn =
      co_await with_deadline(clock, std::chrono::milliseconds(50), "hang", hang(pool, may_end));
  into.other_driver =
      co_await with_deadline(clock, std::chrono::seconds(10), "call", call_of_another_driver(pool));
  may_end.count_down();
  co_return co_await hung.join();
}

TEST(RbdCalls, ThatHangLeaveThreadsToAllOthers) {
  BlockingPool pool(calls_max + 1);
  BesideHungCalls gave;
  must(test::run(call_beside_hung_ones(pool, gave)));
  must(gave.other_driver);
  ASSERT_FALSE(gave.waits_its_turn);
  EXPECT_EQ(gave.waits_its_turn.error().kind(), ErrorKind::timed_out) << "who waits for a turn may leave";
}

Result<void> work_until_told(std::atomic<bool>& stop) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!stop && std::chrono::steady_clock::now() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!stop) return {};
  return unexpected(fail(ErrorKind::io, "told to stop"));
}
Task<Result<void>> cancel_while_it_works(BlockingPool& pool) {
  TaskGroup group(test::runtime().reactor(0));
  group.spawn(run_until_stopped(pool, work_until_told));
  DISKFERRY_CO_CHECK(co_await test::runtime().context().clock.sleep_for(std::chrono::milliseconds(20)));
  group.cancel();
  co_return co_await group.join();
}

TEST(RbdLongWork, IsToldToStopAndWaitedFor) {
  BlockingPool pool(1);
  const auto ended = test::run(cancel_while_it_works(pool));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().kind(), ErrorKind::io)
      << "it is the work's own answer: " << ended.error().message();
}

TEST(RbdProgress, EndsTheLibrarysCallWhereTold) {
  std::atomic<bool> stop = false;
  EXPECT_EQ(stop_where_told(1, 2, &stop), 0);
  EXPECT_EQ(stop_where_told(1, 2, nullptr), 0) << "of a call that nobody stops";
  stop = true;
  EXPECT_EQ(stop_where_told(1, 2, &stop), stop_here);
}

}  // namespace
}  // namespace diskferry::rbd
