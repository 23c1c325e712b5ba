// QEMU's image locks, against QEMU's own programs in both directions.
#include "diskferry/units.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/files.hpp"

#include <chrono>
#include <fstream>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::open;
using test::run;
using test::run_program;
using test::TemporaryFolder;
using ::testing::HasSubstr;

std::string make_image(const std::string& path, const std::string& format) {
  const auto made = run_program({"qemu-img", "create", "-q", "-f", format, path, "1M"});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  return path;
}

/// Waits until somebody lets nobody else write to the file (byte 201).
bool becomes_locked(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return false;
  const std::string wanted = ":" + std::to_string(status.st_ino) + " ";
  const auto is_locked = [&] {
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
      if (line.find(wanted) != std::string::npos && line.find(" 201 ") != std::string::npos) return true;
    }
    return false;
  };
  return test::wait_until(is_locked, std::chrono::seconds(30));
}

TEST(ImageLock, TwoReadersShareAndAWriterIsAlone) {
  TemporaryFolder folder;
  const std::string path = make_image(folder / "disk", "raw");
  auto first = must(open(path));
  auto second = must(open(path));
  const auto writer = open(path, {.writable = true});
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().kind(), ErrorKind::in_use);
  must(run(first->close()));
  must(run(second->close()));

  auto owner = must(open(path, {.writable = true}));
  EXPECT_EQ(open(path, {.writable = true}).error().kind(), ErrorKind::in_use);
  const auto reader = open(path);
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().kind(), ErrorKind::in_use);
  // Held by ourselves: sharing by force is no way out of that, naming another image is.
  EXPECT_THAT(reader.error().message(), HasSubstr("this program uses the same image already"));
  auto shared = must(open(path, {.force_share = true}));
  must(run(shared->close()));
  EXPECT_EQ(open(path, {.writable = true, .force_share = true}).error().kind(), ErrorKind::invalid_argument);
  must(run(owner->close()));
  must(run(must(open(path, {.writable = true}))->close()));
}

class WithQemu : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Formats, WithQemu, ::testing::Values("raw", "qcow2"),
                         [](const auto& one) { return one.param; });

TEST_P(WithQemu, AnImageThatARunningMachineWritesIsRefusedByTheNameOfTheMachine) {
  TemporaryFolder folder;
  const std::string path = make_image(folder / "disk", GetParam());
  const test::ChildProcess machine({"qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-drive",
                                    "if=virtio,format=" + std::string(GetParam()) + ",file=" + path});
  ASSERT_TRUE(becomes_locked(path));
  for (const bool writable : {false, true}) {
    const auto opened = open(path, {.writable = writable});
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::in_use);
    EXPECT_THAT(opened.error().message(), HasSubstr("qemu-system-x86"));
    if (!writable) EXPECT_THAT(opened.error().message(), HasSubstr("--force-share"));
  }
  must(run(must(open(path, {.force_share = true}))->close()));
}

TEST_P(WithQemu, OursIsRefusedByQemu) {
  TemporaryFolder folder;
  const std::string path = make_image(folder / "disk", GetParam());
  auto device = must(open(path, {.writable = true}));
  const auto written = run_program({"qemu-io", "-f", GetParam(), "-c", "write 0 64k", path});
  EXPECT_NE(written.exit_code, 0);
  EXPECT_THAT(written.err + written.out, HasSubstr("lock"));
  if (std::string(GetParam()) == "qcow2") {  // of a raw image QEMU's readers let anybody write
    EXPECT_NE(run_program({"qemu-img", "info", path}).exit_code, 0);
  }
  EXPECT_EQ(run_program({"qemu-img", "info", "-U", path}).exit_code, 0);
  must(run(device->close()));
  EXPECT_EQ(run_program({"qemu-io", "-f", GetParam(), "-c", "write 0 64k", path}).exit_code, 0);
}

TEST_P(WithQemu, ReadersOfBothKindsShareAndKeepWritersOut) {
  TemporaryFolder folder;
  const std::string path = make_image(folder / "disk", GetParam());
  auto device = must(open(path));
  EXPECT_EQ(run_program({"qemu-io", "-r", "-f", GetParam(), "-c", "read 0 64k", path}).exit_code, 0);
  EXPECT_NE(run_program({"qemu-io", "-f", GetParam(), "-c", "write 0 64k", path}).exit_code, 0);
  must(run(device->close()));
}

TEST(ImageLock, ABackingImageOfARunningMachineCanBeReadButNotWritten) {
  TemporaryFolder folder;
  const std::string base = make_image(folder / "base", "qcow2");
  const std::string top = folder / "top";
  ASSERT_EQ(
      run_program({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, top}).exit_code, 0);
  const test::ChildProcess machine({"qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-drive",
                                    "if=virtio,format=qcow2,file=" + top});
  ASSERT_TRUE(becomes_locked(base));
  must(run(must(open(base))->close()));
  EXPECT_EQ(open(base, {.writable = true}).error().kind(), ErrorKind::in_use);
}

}  // namespace
}  // namespace diskferry
