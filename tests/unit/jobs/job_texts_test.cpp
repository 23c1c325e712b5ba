// What may be written into a job, and the names of states.
#include "tests/unit/jobs/store_fixture.hpp"

namespace diskferry::test {
namespace {

TEST(JobStatus, NamesThereAndBack) {
  for (const auto& [status, name, is_over] : std::vector<std::tuple<JobStatus, std::string_view, bool>>{
           {JobStatus::queued, "queued", false},
           {JobStatus::running, "running", false},
           {JobStatus::paused, "paused", false},
           {JobStatus::done, "done", true},
           {JobStatus::failed, "failed", true},
           {JobStatus::cancelled, "cancelled", true},
           {JobStatus::rolled_back, "rolled_back", true}}) {
    EXPECT_EQ(to_string(status), name);
    EXPECT_EQ(parse_job_status(name), status);
    EXPECT_EQ(is_final(status), is_over) << name;
  }
  EXPECT_FALSE(parse_job_status("Done"));
}

struct RequestRow {
  const char* name;
  std::string request;
  bool is_accepted;
};

TEST(JobTexts, ARequestHoldsNoSecrets) {
  const std::vector<RequestRow> rows{
      {"empty", "{}", true},
      {"names of files", R"({"to":"nbds://host/d?tls-psk-file=/etc/keys","password-file":"/etc/p"})", true},
      {"user without password", R"({"disks":["iscsi://me@host/iqn.x/1"]})", true},
      {"a path with odd characters", R"({"disks":["/srv/a://b\n"]})", true},
      {"not a URI of ours", R"({"to":"qemu+ssh://root@host/system?keyfile=/root/id"})", true},
      {"password of a URI", R"({"disks":[{"target":"iscsi://me:hunter2@host/iqn.x/1"}]})", false},
      {"key in a query", R"({"disks":["rbd://pool/image?key=AQB"]})", false},
      {"field", R"({"auth":{"password":"hunter2"}})", false},
      {"field in a list", R"({"auth":[{"token":"x"}]})", false},
      {"an empty one is none", R"({"password":""})", true},
      {"none is none", R"({"password":null})", true},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.name);
    const auto checked = check(NewJob{.kind = "migrate", .request = row.request});
    if (row.is_accepted) {
      EXPECT_TRUE(checked) << checked.error().message();
    } else {
      expect_error(checked, ErrorKind::invalid_argument, "secret");
      EXPECT_EQ(checked.error().message().find("hunter2"), std::string::npos);
    }
  }
}

TEST(JobTexts, WhatIsTooLargeOrNoJsonIsRefused) {
  const std::string large(JobLimits::text_bytes_max + 1, ' ');
  const std::string deep(10'000, '[');
  expect_error(check(NewJob{.kind = ""}), ErrorKind::invalid_argument);
  expect_error(check(NewJob{.kind = "k", .request = large}), ErrorKind::too_large);
  expect_error(check(NewJob{.kind = "k", .request = "{"}), ErrorKind::invalid_argument, "JSON");
  expect_error(check(NewJob{.kind = "k", .request = deep}), ErrorKind::invalid_argument, "JSON");
  expect_error(check(NewJob{.kind = "k", .subject = "\xff"}), ErrorKind::invalid_argument, "UTF-8");
  expect_error(check(NewJob{.kind = "k", .subject = std::string("a\0b", 3)}), ErrorKind::invalid_argument);
  expect_error(check(NewJob{.kind = "k", .id = std::string(JobLimits::name_bytes_max + 1, 'x')}),
               ErrorKind::too_large);
  expect_error(check(JobChanges{.state = ""}), ErrorKind::invalid_argument, "state");
  expect_error(check(JobChanges{.report = "x"}), ErrorKind::invalid_argument, "report");
  expect_error(check(JobChanges{.error = large}), ErrorKind::too_large, "error");
  expect_error(check(JobChanges{.event = NewJobEvent{.kind = "k", .text = "x"}}),
               ErrorKind::invalid_argument);
  expect_error(
      check(NewJobEvent{.kind = "k", .text = "\"" + std::string(JobLimits::event_bytes_max, 'x') + "\""}),
      ErrorKind::too_large);
  EXPECT_TRUE(check(JobChanges{.error = "for people: {"}));
}

using StoreTextsTest = StoreFixture;

TEST_F(StoreTextsTest, RefusedTextsAreNotWritten) {
  open();
  expect_error(run(store->create({.kind = "migrate", .request = R"({"password":"x"})"})),
               ErrorKind::invalid_argument);
  EXPECT_TRUE(must(run(store->list({}))).empty());
  const JobRecord job = create();
  expect_error(run(store->update(job.id, 0, {.phase = "copy", .state = "{"})), ErrorKind::invalid_argument);
  EXPECT_EQ(load(job).phase, "");
  expect_error(run(store->take_lease(job.id, "", std::chrono::seconds(1))), ErrorKind::invalid_argument);
}

TEST_F(StoreTextsTest, HostileTextsComeBackAsTheyWere) {
  open();
  const std::string subject = "'; DROP TABLE jobs; -- %s \xc3\xa4 \n";
  const JobRecord job = create({.kind = "migrate", .subject = subject});
  EXPECT_EQ(load(job).subject, subject);
  EXPECT_EQ(must(run(store->list({.subject = subject}))).size(), 1u);
}

}  // namespace
}  // namespace diskferry::test
