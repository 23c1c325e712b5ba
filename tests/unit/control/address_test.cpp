// Addresses of gateways and targets of requests: what is understood, and what is refused.
#include "gateway/control/address.hpp"

#include "gateway/control/target.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::control {
namespace {
using test::must;

struct Good {
  const char* name;
  std::string text;
  GatewayAddress::Kind kind;
  const char* printed;
};
class GoodAddress : public ::testing::TestWithParam<Good> {};

TEST_P(GoodAddress, IsParsedAndPrintsItself) {
  const auto address = must(GatewayAddress::parse(GetParam().text));
  EXPECT_EQ(address.kind, GetParam().kind);
  EXPECT_EQ(address.to_string(), GetParam().printed);
  EXPECT_EQ(must(GatewayAddress::parse(address.to_string())).to_string(), GetParam().printed);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, GoodAddress,
    ::testing::Values(Good{"none", "", GatewayAddress::Kind::unix_socket, "unix:/run/diskferry/control.sock"},
                      Good{"path", "/run/x", GatewayAddress::Kind::unix_socket, "unix:/run/x"},
                      Good{"unix", "unix:/run/x", GatewayAddress::Kind::unix_socket, "unix:/run/x"},
                      Good{"unix_slashes", "unix:///run/x", GatewayAddress::Kind::unix_socket, "unix:/run/x"},
                      Good{"host", "https://b", GatewayAddress::Kind::https, "https://b:10810"},
                      Good{"host_slash", "https://b:1/", GatewayAddress::Kind::https, "https://b:1"},
                      Good{"ipv6", "https://[::1]:2", GatewayAddress::Kind::https, "https://[::1]:2"},
                      Good{"settings", "https://10.0.0.1?certificates=/pki&server-name=b",
                           GatewayAddress::Kind::https,
                           "https://10.0.0.1:10810?certificates=/pki&server-name=b"}),
    [](const auto& row) { return row.param.name; });

TEST(GatewayAddress, WhatMakesNoSenseIsRefused) {
  for (const std::string& text :
       {std::string("run/x"), std::string("unix:x"), std::string("unix:"), std::string("http://b"),
        std::string("https://"), std::string("https://b:99999"), std::string("https://user@b"),
        std::string("https://b/path"), std::string("https://b?color=red"),
        "unix:/" + std::string(200, 'x')}) {
    const auto parsed = GatewayAddress::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind(), ErrorKind::invalid_argument) << text;
  }
}

TEST(Target, AnEscapedSlashStaysInItsSegment) {
  const auto target = must(parse_target("/v1/exports/a%2Fb%20c?x=%26&y"));
  EXPECT_EQ(target.segments, (std::vector<std::string>{"v1", "exports", "a/b c"}));
  EXPECT_EQ(target.query.at("x"), "&");
  EXPECT_EQ(target.query.at("y"), "");
}

TEST(Target, WhatIsEscapedComesBack) {
  const std::string name = "a/b?c&d=e%f\n\xc3\xa4..";
  EXPECT_EQ(must(parse_target("/" + escape(name))).segments.front(), name);
}

TEST(Target, WhatMakesNoSenseIsRefused) {
  for (const std::string& text :
       {std::string(""), std::string("*"), std::string("http://x/"), std::string("/%"), std::string("/%4"),
        std::string("/%g0"), std::string("/%00"), std::string("/%+1"), std::string("/x?a=1&a=2"),
        std::string("/1/2/3/4/5/6/7/8/9"), "/" + std::string(9000, 'x')})
    EXPECT_FALSE(parse_target(text)) << text;
}

}  // namespace
}  // namespace diskferry::control
