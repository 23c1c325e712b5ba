// The monitor's lines: what is read of good ones, and how bad ones are refused.
#include "gateway/hypervisor/qmp_message.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
template <class T>
T read_as(std::string_view line) {
  auto message = parse_qmp(line);
  EXPECT_TRUE(message) << message.error().message();
  EXPECT_TRUE(std::holds_alternative<T>(*message));
  return std::get<T>(*std::move(message));
}

TEST(QmpMessage, ReadsAGreeting) {
  const auto greeting = read_as<QmpGreeting>(
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}})");
  EXPECT_EQ(greeting.version.major, 7U);
  EXPECT_EQ(greeting.version.minor, 2U);
  EXPECT_EQ(greeting.version.micro, 22U);
}

TEST(QmpMessage, ReadsReplies) {
  const auto good = read_as<QmpReply>(R"({"return": [1, {"a": null}], "id": 7})");
  EXPECT_EQ(good.id, 7U);
  EXPECT_EQ(boost::json::serialize(good.result.value()), R"([1,{"a":null}])");
  const auto bad = read_as<QmpReply>(R"({"error": {"class": "DeviceNotFound", "desc": "no such"}, "id": 8})");
  EXPECT_EQ(bad.id, 8U);
  EXPECT_EQ(bad.result.error().kind(), ErrorKind::not_found);
  EXPECT_EQ(bad.result.error().why(), "no such");
  EXPECT_EQ(read_as<QmpReply>(R"({"error": {"class": "GenericError", "desc": "JSON parse error"}})").id,
            std::nullopt);
  EXPECT_EQ(read_as<QmpReply>(R"({"return": {}, "id": "text"})").id, std::nullopt);
  EXPECT_EQ(read_as<QmpReply>(R"({"return": {}, "id": -1})").id, std::nullopt);
}

TEST(QmpMessage, ReadsAnEvent) {
  const auto event = read_as<QmpEvent>(
      R"({"timestamp": {"seconds": 2, "microseconds": 5}, "event": "STOP", "data": {"x": 1}})");
  EXPECT_EQ(event.name, "STOP");
  EXPECT_EQ(event.data.at("x").as_int64(), 1);
  EXPECT_EQ(event.qemu_us, 2'000'005U);
  EXPECT_EQ(read_as<QmpEvent>(R"({"event": "STOP"})").qemu_us, 0U);
  EXPECT_EQ(read_as<QmpEvent>(R"({"event": 7, "data": 9, "timestamp": []})").name, "");
}

struct BadLine {
  std::string_view name;
  std::string line;
  ErrorKind kind;
};
class QmpBadLine : public testing::TestWithParam<BadLine> {};
TEST_P(QmpBadLine, IsRefused) {
  const auto message = parse_qmp(GetParam().line);
  ASSERT_FALSE(message);
  EXPECT_EQ(to_string(message.error().kind()), to_string(GetParam().kind));
}
INSTANTIATE_TEST_SUITE_P(
    Table, QmpBadLine,
    testing::Values(BadLine{"Empty", "", ErrorKind::protocol}, BadLine{"Text", "hello", ErrorKind::protocol},
                    BadLine{"Half", R"({"return": )", ErrorKind::protocol},
                    BadLine{"List", "[]", ErrorKind::protocol}, BadLine{"Neither", "{}", ErrorKind::protocol},
                    BadLine{"TwoValues", R"({"return": 1} {"return": 2})", ErrorKind::protocol},
                    BadLine{"NoUtf8", "{\"return\": \"\xff\xfe\"}", ErrorKind::protocol},
                    BadLine{"Nul", std::string("{\"return\"\0: 1}", 14), ErrorKind::protocol},
                    BadLine{"Deep", "{\"return\": " + std::string(100000, '['), ErrorKind::too_large},
                    BadLine{"Long", std::string(qmp_line_bytes_max + 1, ' '), ErrorKind::too_large}),
    [](const auto& row) { return std::string(row.param.name); });

TEST(QmpBadError, BecomesAnErrorAllTheSame) {
  EXPECT_EQ(read_as<QmpReply>(R"({"error": 5, "id": 1})").result.error().kind(), ErrorKind::protocol);
  EXPECT_EQ(read_as<QmpReply>(R"({"error": {}, "id": 1})").result.error().kind(), ErrorKind::io);
}

TEST(QmpLine, IsOneLine) {
  EXPECT_EQ(qmp_line(3, "query-status", {}), "{\"execute\":\"query-status\",\"id\":3}\n");
  const auto line = qmp_line(4, "cont", {{"text", "two\nlines"}});
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

struct KindRow {
  std::string_view error_class;
  std::string_view words;
  ErrorKind kind;
};
TEST(QmpErrorKinds, FollowClassAndWords) {
  constexpr KindRow rows[] = {
      {"CommandNotFound", "The command x has not been found", ErrorKind::unsupported},
      {"DeviceNotFound", "Device 'd' not found", ErrorKind::not_found},
      {"DeviceNotActive", "No active job", ErrorKind::not_found},
      {"GenericError", "Failed to get \"write\" lock", ErrorKind::in_use},
      {"GenericError", "Node 'gw0' is busy: block device is in use by block job: mirror", ErrorKind::in_use},
      {"GenericError", "Duplicate nodes with node-name='gw0'", ErrorKind::already_exists},
      {"GenericError", "Cannot find device='d' nor node-name='d'", ErrorKind::not_found},
      {"GenericError", "Failed to connect to '/x': No such file or directory", ErrorKind::not_found},
      {"GenericError", "Failed to connect to '/x': Connection refused", ErrorKind::gone},
      {"GenericError", "Parameter 'uri' is missing", ErrorKind::invalid_argument},
      {"GenericError", "Input/output error", ErrorKind::io},
      {"", "", ErrorKind::io},
  };
  for (const auto& row : rows)
    EXPECT_EQ(to_string(kind_of_qmp(row.error_class, row.words)), to_string(row.kind)) << row.words;
}
}  // namespace
}  // namespace diskferry
