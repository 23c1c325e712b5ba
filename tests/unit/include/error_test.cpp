#include "diskferry/error_kinds.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

TEST(Error, TellsStepsObjectCauseAndRemedyInOneLine) {
  const Error error = fail(ErrorKind::no_space, "write", "disk.raw")
                          .cause(errno_code(ENOSPC))
                          .at(4096, 512)
                          .remedy("free space, then run again with --resume")
                          .in("copy");
  EXPECT_EQ(
      error.message(),
      "copy: disk.raw: write: No space left on device at offset 4096, length 512; free space, then run again "
      "with --resume");
}

TEST(Error, FirstCauseSurvivesTheWayUp) {
  const auto inner = []() -> Result<int> { return unexpected(errno_error(EIO, "read", "a")); };
  const auto outer = [&]() -> Result<int> {
    DISKFERRY_TRY(const int value, inner());
    return value;
  };
  const auto result = outer();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::io);
  EXPECT_EQ(result.error().cause().value(), EIO);
}

TEST(ErrorKinds, TableIsInTheOrderOfTheEnum) {
  for (std::size_t i = 0; i < error_kind_count; ++i) {
    EXPECT_EQ(static_cast<std::size_t>(error_kinds[i].kind), i) << error_kinds[i].name;
  }
}

TEST(ErrorKinds, OnlyListedErrorsGoOnTheWire) {
  for (const auto& row : error_kinds) {
    switch (row.nbd) {
      case NbdErrno::perm:
      case NbdErrno::io:
      case NbdErrno::nomem:
      case NbdErrno::inval:
      case NbdErrno::nospc:
      case NbdErrno::overflow:
      case NbdErrno::notsup:
      case NbdErrno::shutdown:
        break;
      default:
        ADD_FAILURE() << row.name;
    }
    EXPECT_NE(row.exit, ExitCode::done) << row.name;
  }
}

}  // namespace
}  // namespace diskferry
