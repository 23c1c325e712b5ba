// Jobs of moves that cannot be begun.
#include "gateway/move/move_service.hpp"

#include "tests/unit/move/move_scene.hpp"

namespace diskferry {
namespace {
using test::must;
using test::run;

class MoveServiceTest : public test::MoveScene {};

Task<Result<void>> stop(MoveService& service) {
  co_await service.stop();
  co_return Result<void>{};
}

TEST_F(MoveServiceTest, AMoveThatCannotBeBegunIsOver) {
  MoveService service(environment());
  must(run(stop(service)));
  test::expect_error(run(service.begin(to_json(request()))), ErrorKind::cancelled);
  EXPECT_TRUE(must(run(store->list({.active_only = true}))).empty())
      << "it would stand in the way of the next one";
  const auto all = must(run(store->list({})));
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(to_string(all.front().status), to_string(JobStatus::failed));
  EXPECT_FALSE(all.front().error.empty());
}

TEST_F(MoveServiceTest, AWrongRequestLeavesNoJob) {
  MoveService service(environment());
  test::expect_error(run(service.begin(R"({"domain":"vm1"})")), ErrorKind::invalid_argument, "other host");
  EXPECT_TRUE(must(run(store->list({}))).empty());
  must(run(stop(service)));
}

}  // namespace
}  // namespace diskferry
