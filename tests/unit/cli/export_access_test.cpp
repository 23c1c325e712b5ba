// Which export a rule is for.
#include "gateway/cli/export_access.hpp"

#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

const std::vector<std::string> names{"open", "vm", "vm=old"};

TEST(AccessRules, AreThoseOfTheExportsTheyName) {
  const auto rules = access_rules({.require_tls = {"vm"}, .allow_for = {"vm=old=bob", "vm=a=b"}}, names);
  ASSERT_TRUE(rules) << rules.error().message();
  EXPECT_EQ((*rules)[0], AccessRules{});
  EXPECT_EQ((*rules)[1], (AccessRules{.requires_tls = true, .allow = {"a=b"}}));
  EXPECT_EQ((*rules)[2], (AccessRules{.requires_tls = true, .allow = {"bob"}}));
}

TEST(AccessRules, RefuseWhatProtectsNothing) {
  for (const AccessOptions& options :
       {AccessOptions{.require_tls = {"VM"}}, AccessOptions{.allow_for = {"other=alice"}},
        AccessOptions{.allow_for = {"vm"}}, AccessOptions{.allow_for = {"open="}}}) {
    const auto rules = access_rules(options, names);
    ASSERT_FALSE(rules);
    EXPECT_EQ(rules.error().kind(), ErrorKind::invalid_argument);
  }
}

}  // namespace
}  // namespace diskferry::cli
