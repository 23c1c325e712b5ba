// What is asked of a replacement, what of it can be changed, and what the job notes of that.
#include "gateway/move/replace_request.hpp"

#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

constexpr std::int64_t now_ms = 1'785'247'200'000;

ReplaceRequest full_request() {
  return {.disks = {{"vm", "/images/vm.raw", "raw"}, {"log", "nfs://store/log.raw", ""}},
          .overwrite = true,
          .bytes_per_s = UINT64_MAX,
          .max_pause_ms = 17,
          .max_write_latency_ms = 18,
          .deadline_s = 19,
          .on_read_error = OnReadError::skip,
          .commit_at_ms = now_ms,
          .retain_s = 20,
          .remove_source = true,
          .connections = 3};
}

std::string refusal(const ReplaceRequest& request) {
  const auto checked = check(request);
  return checked ? "" : checked.error().message();
}

TEST(ReplaceRequest, ComesBackWhole) {
  EXPECT_EQ(to_json(must(parse_replace_request(to_json(full_request())))), to_json(full_request()));
}

TEST(ReplaceRequest, IsRefusedWhereItContradictsItself) {
  EXPECT_EQ(refusal(full_request()), "");
  ReplaceRequest request = full_request();
  request.commit_by_hand = true;
  EXPECT_NE(refusal(request).find("by hand or at a time"), std::string::npos);
  request = full_request();
  request.max_write_latency_ms = 0;
  EXPECT_NE(refusal(request).find("max-write-latency-ms is between"), std::string::npos);
  request = full_request();
  request.deadline_s = 400ull * 24 * 3600;
  EXPECT_NE(refusal(request).find("deadline-s is a year at most"), std::string::npos);
  EXPECT_FALSE(parse_replace_request(R"({"disks":[{"export":"vm","uri":"/x"}],"on-read-error":"ignore"})"));
}

TEST(ReplaceRequest, ATimeThatIsOverIsRefusedWhenItBeginsAndNotWhenItIsReadAgain) {
  const ReplaceRequest request = full_request();
  must(check_time(request, now_ms));
  EXPECT_EQ(check_time(request, now_ms + 1).error().kind(), ErrorKind::invalid_argument);
  ReplaceRequest any_time = request;
  any_time.commit_at_ms = 0;
  must(check_time(any_time, now_ms + 1));
}

TEST(ReplaceLimits, AreThoseOfTheRequestAndWhatWasSetSince) {
  const ReplaceLimits first = limits_of(full_request(), now_ms);
  EXPECT_EQ(first.max_pause_ms, 17u);
  EXPECT_EQ(first.max_write_latency_ms, 18u);
  EXPECT_EQ(first.deadline_at_ms, now_ms + 19'000);
  EXPECT_EQ(limits_of({}, now_ms).deadline_at_ms, 0);
  const ReplaceLimits changed =
      must(with_settings(first, {.max_write_latency_ms = 5, .deadline_s = 60}, now_ms + 1000));
  EXPECT_EQ(changed.max_write_latency_ms, 5u);
  EXPECT_EQ(changed.deadline_at_ms, now_ms + 61'000);
  EXPECT_EQ(changed.bytes_per_s, UINT64_MAX);
  EXPECT_EQ(changed.on_read_error, OnReadError::skip);
  EXPECT_EQ(must(with_settings(changed, {.deadline_s = 0}, now_ms)).deadline_at_ms, 0);
  EXPECT_EQ(must(with_settings(changed, {.on_read_error = "abort"}, now_ms)).on_read_error,
            OnReadError::abort);
}

TEST(ReplaceLimits, WhatMakesNoSenseIsRefused) {
  for (const ReplaceSettings& settings :
       {ReplaceSettings{.max_pause_ms = 0}, ReplaceSettings{.max_pause_ms = 60'001},
        ReplaceSettings{.max_write_latency_ms = 0}, ReplaceSettings{.deadline_s = UINT64_MAX},
        ReplaceSettings{.on_read_error = "ignore"}})
    EXPECT_EQ(with_settings({}, settings, now_ms).error().kind(), ErrorKind::invalid_argument);
}

TEST(ReplaceLimits, AreInTheStateOfTheJob) {
  ReplaceState state;
  EXPECT_FALSE(must(parse_replace_state(to_json(state))).limits);
  state.limits = ReplaceLimits{.bytes_per_s = 1,
                               .max_pause_ms = 2,
                               .max_write_latency_ms = 3,
                               .deadline_at_ms = now_ms,
                               .on_read_error = OnReadError::abort};
  const auto back = must(parse_replace_state(to_json(state)));
  ASSERT_TRUE(back.limits);
  EXPECT_EQ(back.limits->max_write_latency_ms, 3u);
  EXPECT_EQ(to_json(back), to_json(state));
}

}  // namespace
}  // namespace diskferry
