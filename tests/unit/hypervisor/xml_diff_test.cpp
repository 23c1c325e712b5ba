#include "tests/unit/hypervisor/domains.hpp"

#include <fmt/format.h>
#include <sstream>

namespace diskferry {
namespace {

struct Row {
  std::string name;
  std::string before;
  std::string after;
  std::string diff;
};
class DiffTable : public testing::TestWithParam<Row> {};

TEST_P(DiffTable, IsUnified) {
  EXPECT_EQ(xml_diff(GetParam().before, GetParam().after), GetParam().diff);
}

const std::string ten = "<d><a/><b/><c/><e/><f/><g/><h/><i/><j/></d>";

INSTANTIATE_TEST_SUITE_P(
    Documents, DiffTable,
    testing::Values(
        Row{"equal", "<d><a/></d>", "<d><a/></d>", ""},
        Row{"layout_and_quotes_are_no_difference", "<d><a x=\"1\"/></d>", "<d>\n\n  <a   x='1'></a></d>\n",
            ""},
        Row{"changed", "<d><a x='1'/></d>", "<d><a x='2'/></d>",
            "--- before\n+++ after\n@@ -1,3 +1,3 @@\n <d>\n-  <a x='1'/>\n+  <a x='2'/>\n </d>\n"},
        Row{"context_is_three_lines", ten, "<d><a/><b/><c/><e/><X/><g/><h/><i/><j/></d>",
            "--- before\n+++ after\n@@ -3,7 +3,7 @@\n   <b/>\n   <c/>\n   <e/>\n-  <f/>\n+  <X/>\n   <g/>\n  "
            " <h/>\n"
            "   <i/>\n"},
        Row{"added_at_the_end", "<d/>", "<d/><!-- x -->",
            "--- before\n+++ after\n@@ -1 +1,2 @@\n <d/>\n+<!-- x -->\n"},
        Row{"two_hunks", ten, "<d><X/><a/><b/><c/><e/><f/><g/><h/><i/></d>",
            "--- before\n+++ after\n@@ -1,4 +1,5 @@\n <d>\n+  <X/>\n   <a/>\n   <b/>\n   <c/>\n"
            "@@ -7,5 +8,4 @@\n   <g/>\n   <h/>\n   <i/>\n-  <j/>\n </d>\n"},
        Row{"near_differences_share_a_hunk", ten, "<d><X/><b/><c/><e/><f/><g/><h/><Y/><j/></d>",
            "--- before\n+++ after\n@@ -1,11 +1,11 @@\n <d>\n-  <a/>\n+  <X/>\n   <b/>\n   <c/>\n   <e/>\n   "
            "<f/>\n   <g/>\n"
            "   <h/>\n-  <i/>\n+  <Y/>\n   <j/>\n </d>\n"},
        Row{"passwords_are_masked", "<d><g passwd='one'/><a/></d>", "<d><g passwd='two'/></d>",
            "--- before\n+++ after\n@@ -1,4 +1,3 @@\n <d>\n   <g passwd='***'/>\n-  <a/>\n </d>\n"},
        Row{"no_xml", "a\nb", "a\nc\x1b", "--- before\n+++ after\n@@ -1,2 +1,2 @@\n a\n-b\n+c\\x1b\n"}),
    test::row_name<Row>);

// Applies a difference as patch(1) would and so finds every wrong number or line.
std::string patched(const std::string& before, const std::string& diff) {
  std::vector<std::string> old_lines;
  std::istringstream old_text(before);
  for (std::string line; std::getline(old_text, line);) old_lines.push_back(line);
  std::istringstream text(diff);
  std::string result;
  std::size_t done = 0;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("---") || line.starts_with("+++")) continue;
    if (line.starts_with("@@ -")) {
      std::size_t first = std::stoul(line.substr(4));
      const bool is_insertion = line.substr(0, line.find(" +")).ends_with(",0");
      for (const std::size_t upto = is_insertion ? first : first - 1; done < upto; ++done)
        result += old_lines[done] + "\n";
      continue;
    }
    if (line[0] != '+') {
      EXPECT_EQ(line.substr(1), old_lines.at(done));
      ++done;
    }
    if (line[0] != '-') result += line.substr(1) + "\n";
  }
  for (; done < old_lines.size(); ++done) result += old_lines[done] + "\n";
  return result;
}

TEST(XmlDiff, PatchesGiveTheOtherText) {
  std::uint32_t state = 1;
  const auto random = [&](std::uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 16) % below;
  };
  for (int round = 0; round < 300; ++round) {
    std::string before;
    std::string after;
    for (std::uint32_t i = random(40); i > 0; --i) {
      const std::string line(1, static_cast<char>('a' + random(4)));
      if (random(5) != 0) before += line + "\n";
      if (random(5) != 0) after += line + "\n";
    }
    EXPECT_EQ(patched(before, xml_diff(before, after)), after);
  }
}

// Beyond the bound the answer is coarse, but right and quick.
TEST(XmlDiff, ManyDifferences) {
  std::string before = "same\n";
  std::string after = "same\n";
  for (std::size_t i = 0; i < 2 * xml_diff_edits_max; ++i) {
    before += fmt::format("old {}\n", i);
    after += fmt::format("new {}\n", i);
  }
  EXPECT_EQ(patched(before, xml_diff(before, after)), after);
}

}  // namespace
}  // namespace diskferry
