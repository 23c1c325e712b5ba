// What is decided about a target before anything is written to it.
#include "gateway/copy/target.hpp"

#include "drivers/checked_device.hpp"
#include "drivers/memory/memory_device.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

CopyRequest onto(const std::string& target, std::string format) {
  CopyRequest request;
  request.target = must(ImageUri::parse(target));
  request.target_format = std::move(format);
  return request;
}

TEST(DecideTarget, RefusesFormatsThatAreOnlyRead) {
  const auto refused = decide_target({.can_create = true}, onto("/d.vdi", "vdi"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(must(decide_target({.can_create = true}, onto("/d.raw", "raw"))), TargetAction::create);
}

TEST(DecideTarget, SaysOfWhatCanOnlyBeReadThatItIsSo) {
  TargetState there{.volume = {.exists = true}, .can_create = true};
  EXPECT_EQ(decide_target(there, onto("/d", "raw")).error().kind(), ErrorKind::already_exists);
  there.volume.obstacles.push_back(fail(ErrorKind::read_only, "write to", "/d"));
  for (const auto existing :
       {CopyRequest::Existing::refuse, CopyRequest::Existing::overwrite, CopyRequest::Existing::use}) {
    auto request = onto("/d", "raw");
    request.existing = existing;
    EXPECT_EQ(decide_target(there, request).error().kind(), ErrorKind::read_only);
  }
}

TEST(DecideTarget, NamesOnlyOptionsThatTheCommandHas) {
  const TargetState there{.volume = {.exists = true}, .can_create = true};
  const Error of_a_job = decide_target(there, onto("/d", "raw")).error();
  const Error of_copy = decide_copy_target(there, onto("/d", "raw")).error();
  EXPECT_TRUE(of_a_job.remedy().contains("--overwrite")) << of_a_job.message();
  EXPECT_FALSE(of_a_job.remedy().contains("--resume")) << of_a_job.message();
  EXPECT_TRUE(of_copy.remedy().contains("--resume")) << of_copy.message();
}

TEST(RefuseTooSmall, IsOfARawDiskThatKeepsItsSizeAndOfNothingElse) {
  const CopyRequest raw = onto("/d", "raw");
  const TargetState disk{.volume = {.exists = true, .size_bytes = 1000}};
  EXPECT_TRUE(keeps_size(disk, raw));
  EXPECT_TRUE(refuse_too_small(disk, raw, 1000));
  const auto refused = refuse_too_small(disk, raw, 1001);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::too_large);
  EXPECT_NE(refused.error().remedy(), "");
  const TargetState file{.volume = {.exists = true, .can_be_emptied = true, .size_bytes = 1000}};
  EXPECT_TRUE(refuse_too_small(file, raw, 1001)) << "is made anew";
  EXPECT_TRUE(refuse_too_small({}, raw, 1001)) << "is made";
  EXPECT_TRUE(refuse_too_small(disk, onto("/d", "qcow2"), 1001)) << "is an image as large as it needs";
}

TEST(RefuseSameStorage, ComparesAllLayersByAllNames) {
  const ImageUri name = must(ImageUri::parse("/d"));
  const std::vector<SourceLayer> layers{{.keys = {"a", "b"}}, {.keys = {"c"}}, {}};
  EXPECT_TRUE(refuse_same_storage(layers, {.keys = {"d"}}, name));
  EXPECT_TRUE(refuse_same_storage(layers, {}, name));
  EXPECT_TRUE(refuse_same_storage(layers, {.keys = {"x", "b"}}, name).error().why().contains("same image"));
  EXPECT_TRUE(refuse_same_storage(layers, {.keys = {"c"}}, name).error().why().contains("backing image"));
}

TEST(Verification, IsBySamplesWhereAServerWouldHaveToReadAll) {
  for (const char* server :
       {"nfs://h/e/d", "iscsi://h/iqn.2026-01.org.example:t/1", "rbd://p/i", "gluster://h/v/d"})
    EXPECT_EQ(usual_verification(must(ImageUri::parse(server))), VerifyLevel::sample) << server;
  for (const char* other : {"/d", "nbd://h/d", "memory:///?size=512"})
    EXPECT_EQ(usual_verification(must(ImageUri::parse(other))), VerifyLevel::cache) << other;
}

TEST(Sectors, AreSaidToBeUnlikeWhereTheyAreLarger) {
  const auto device = [](std::uint32_t block_bytes) {
    return checked(make_memory_device({.size_bytes = 1 << 20, .block_bytes = block_bytes}));
  };
  const auto text = [&](std::uint32_t had, std::uint32_t has, std::string_view format) {
    const DevicePtr source = device(had);
    const DevicePtr target = device(has);
    std::string said = sectors_unlike({*source, *target}, format);
    for (BlockDevice* one : {source.get(), target.get()}) must(test::run(one->close()));
    return said;
  };
  EXPECT_TRUE(text(1, 4096, "raw").contains("4096"));
  EXPECT_TRUE(text(512, 4096, "raw").contains("4096"));
  EXPECT_EQ(text(1, 512, "raw"), "");
  EXPECT_EQ(text(4096, 4096, "raw"), "");
  EXPECT_EQ(text(4096, 512, "raw"), "");
  EXPECT_EQ(text(1, 4096, "qcow2"), "");
}

}  // namespace
}  // namespace diskferry
