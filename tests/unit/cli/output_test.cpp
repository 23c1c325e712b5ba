// JSON and name-value output, and the machine form of the log.
#include "gateway/cli/output.hpp"

#include "gateway/runtime/logging.hpp"

#include <sstream>

#include <boost/json/parse.hpp>
#include <gtest/gtest.h>

namespace diskferry::cli {
namespace {

TEST(PrintJson, IndentsAndStaysTheSameValue) {
  const auto value =
      boost::json::parse(R"({"a":[1,{"b":"x\n\"y\""},[],{}],"c":null,"d":18446744073709551615})");
  std::ostringstream out;
  print_json(out, value);
  EXPECT_EQ(boost::json::parse(out.str()), value);
  EXPECT_TRUE(out.str().starts_with("{\n  \"a\": [\n    1,\n")) << out.str();
}

TEST(PrintJson, EscapesWhatATerminalWouldActOnAndStaysTheSameValue) {
  const boost::json::value value{{"name",
                                  "a\x1b[2J\x7f\xc2\x9b"
                                  "b\xc2\xa0\n\\x1b"}};
  std::ostringstream out;
  print_json(out, value);
  for (const std::string& text : {out.str(), to_json_line(value)}) {
    EXPECT_EQ(boost::json::parse(text), value) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
    EXPECT_EQ(text.find('\x7f'), std::string::npos) << text;
    EXPECT_EQ(text.find("\xc2\x9b"), std::string::npos) << text;
  }
}

TEST(FieldList, AlignsValuesAndDropsEmptyOnes) {
  FieldList fields;
  fields.add("a", "1");
  fields.add("empty", "");
  fields.add("longer", "2\x1b[2J");
  std::ostringstream out;
  fields.print(out);
  EXPECT_EQ(out.str(), "a:       1\nlonger:  2\\x1b[2J\n");
}

TEST(LogLine, IsJsonWhateverTheTextHolds) {
  const auto line = boost::json::parse(json_log_line(1'700'000'000'123, "warn", "a \"quoted\"\nname"));
  EXPECT_EQ(line.at("time"), "2023-11-14T22:13:20.123Z");
  EXPECT_EQ(line.at("level"), "warn");
  EXPECT_EQ(line.at("event"), "a \"quoted\"\nname");
}

}  // namespace
}  // namespace diskferry::cli
