// Values and errors as JSON: what is written is read again, and nothing else is taken.
#include "gateway/control/json.hpp"

#include "gateway/control/status.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::control {
namespace {
using test::must;

constexpr std::size_t depth = 16;

TEST(ControlJson, AJobKeepsItsDocuments) {
  const JobDescription job{.id = "m-1",
                           .kind = "migrate",
                           .subject = "vm",
                           .phase = "bulk",
                           .status = "running",
                           .error = "line\nbreak",
                           .created_ms = 1,
                           .updated_ms = 2,
                           .request_json = R"({"to":"host-b","disks":[{"name":"vda"}]})",
                           .state_json = R"({"done":1})",
                           .report_json = "{}"};
  const auto back = must(from_json<JobDescription>(to_json(job), Unknown::refused, depth));
  EXPECT_EQ(to_json(back), to_json(job));
  EXPECT_EQ(back.request_json, job.request_json);
  EXPECT_EQ(back.error, job.error);
}

TEST(ControlJson, SettingsThatAreNotGivenStayAway) {
  EXPECT_EQ(to_json(JobSettings{.max_pause_ms = 300}), R"({"max-pause-ms":300})");
  const auto back = must(from_json<JobSettings>(R"({"rate":0})", Unknown::refused, depth));
  EXPECT_EQ(back.rate_bytes_per_s, 0u);
  EXPECT_FALSE(back.max_pause_ms);
}

TEST(ControlJson, SettingsComeBackWhole) {
  const JobSettings settings{.rate_bytes_per_s = 1,
                             .max_pause_ms = 2,
                             .max_write_latency_ms = 3,
                             .deadline_s = 4,
                             .on_read_error = "skip",
                             .window_bytes = 5,
                             .connections = 6};
  const auto back = must(from_json<JobSettings>(to_json(settings), Unknown::refused, depth));
  EXPECT_EQ(to_json(back), to_json(settings));
  EXPECT_EQ(back.max_write_latency_ms, 3u);
  EXPECT_EQ(back.on_read_error, "skip");
}

TEST(ControlJson, NumbersKeepTheirBounds) {
  EXPECT_EQ(must(from_json<JobSettings>(R"({"rate":18446744073709551615})", Unknown::refused, depth))
                .rate_bytes_per_s,
            UINT64_MAX);
  for (const char* text : {R"({"rate":-1})", R"({"rate":1.5})", R"({"rate":"1"})",
                           R"({"connections":4294967296})", R"({"rate":18446744073709551616})"})
    EXPECT_FALSE(from_json<JobSettings>(text, Unknown::refused, depth)) << text;
}

TEST(ControlJson, AnswersMayHaveMoreFieldsThanWeKnow) {
  const std::string text = R"({"exports":[{"name":"a","color":"red"}],"more":1})";
  EXPECT_EQ(must(from_json<std::vector<ExportDescription>>(text, Unknown::ignored, depth)).size(), 1u);
  EXPECT_FALSE(from_json<std::vector<ExportDescription>>(text, Unknown::refused, depth));
}

TEST(ControlJson, ANameThatIsNoUtf8IsStillJson) {
  const auto back = must(
      from_json<ExportDescription>(to_json(ExportDescription{.name = "a\xff"}), Unknown::refused, depth));
  EXPECT_EQ(back.name, "a\\xff");
}

TEST(ControlJson, AnErrorArrivesAsItLeft) {
  for (const ErrorKindRow& row : error_kinds) {
    const Error error = fail(row.kind, "open", "/srv/a b.raw")
                            .cause(errno_code(ENOSPC))
                            .at(4096, 512)
                            .why("the disk is full")
                            .remedy("free space")
                            .in("inner step")
                            .in("outer step");
    const Error back = error_from_json(to_json(error), status_of(row.kind));
    EXPECT_EQ(back.kind(), error.kind());
    EXPECT_EQ(back.message(), error.message());
  }
}

TEST(ControlJson, WhatIsNoErrorOfOursIsAProtocolError) {
  for (const char* text : {"", "<html>", "[]", "{}", R"({"error":"text"})"})
    EXPECT_EQ(error_from_json(text, 500).kind(), ErrorKind::protocol) << text;
}

TEST(ControlJson, TheTableOfStatusesIsInTheOrderOfTheKinds) {
  for (std::size_t i = 0; i < statuses.size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(statuses[i].kind), i);
    EXPECT_GE(statuses[i].status, 400u);
  }
}

}  // namespace
}  // namespace diskferry::control
