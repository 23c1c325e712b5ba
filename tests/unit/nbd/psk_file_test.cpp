#include "gateway/nbd/psk_file.hpp"

#include "tests/support/test_runtime.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry::nbd_server {
namespace {
using testing::HasSubstr;
using testing::Not;

Result<void> read(const std::string& content, PskTable& table) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "keys.psk", std::ios::binary) << content;
  return read_psk_file(folder / "keys.psk", table);
}

TEST(PskFile, IsReadAsItsToolsWriteIt) {
  PskTable table;
  test::must(read("# who may come in\r\nalice:00ff7A\r\n\nbob:01\nbob:02", table));
  ASSERT_NE(table.find("alice"), nullptr);
  EXPECT_EQ(*table.find("alice"), (std::vector<unsigned char>{0x00, 0xff, 0x7a}));
  EXPECT_EQ(*table.find("bob"), std::vector<unsigned char>{2}) << "the last line counts";
  EXPECT_EQ(table.find("carol"), nullptr);
}

TEST(PskFile, WhatIsWrongIsNamedAndNoKeyIsRepeated) {
  const std::string longest(128, 'a');
  PskTable enough;
  test::must(read("alice:" + longest, enough));
  struct Row {
    std::string content;
    const char* said;
  };
  for (const Row& row : {Row{"", "no keys"},
                         {"# nobody\n", "no keys"},
                         {"a:01\nalice", "line 2: no user"},
                         {":abcd", "line 1: no user"},
                         {"alice:", "hexadecimal digits"},
                         {"alice:abc", "hexadecimal digits"},
                         {"alice:abcdefgh", "not hexadecimal"},
                         {"alice:" + longest + "aa", "2 to 128 hexadecimal digits"},
                         {"#" + std::string(1 << 20, 'x'), "too large"}}) {
    PskTable table;
    const auto refused = read(row.content, table);
    ASSERT_FALSE(refused) << row.said;
    EXPECT_EQ(refused.error().kind(), ErrorKind::invalid_argument);
    EXPECT_THAT(refused.error().message(), HasSubstr(row.said));
    EXPECT_THAT(refused.error().message(), HasSubstr("keys.psk"));
    EXPECT_THAT(refused.error().message(), Not(HasSubstr("abc")));
    EXPECT_THAT(refused.error().message(), Not(HasSubstr("aaaa")));
  }
  PskTable table;
  EXPECT_EQ(read_psk_file("/nowhere/keys.psk", table).error().kind(), ErrorKind::not_found);
}

}  // namespace
}  // namespace diskferry::nbd_server
