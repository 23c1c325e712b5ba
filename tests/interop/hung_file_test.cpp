// Files on a file system that hangs, as one does whose server is away: nothing else waits for it. The file
// system is QEMU's, by way of FUSE, and its process is stopped.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"
#include "tests/unit/drivers/files.hpp"

#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <thread>

#include <boost/asio/this_coro.hpp>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::open_to_write;
using test::run;

constexpr std::uint64_t size_bytes = 16 * mib;
constexpr std::uint64_t requests = 24;  // more than there are threads
constexpr auto limit = std::chrono::seconds(20);

class FarFile {
 public:
  FarFile() {
    must(test::create(folder_ / "image", {.size_bytes = size_bytes}));
    must(test::create(path(), {.size_bytes = 0}));
    process_.emplace(std::vector<std::string>{
        "qemu-storage-daemon", "--blockdev", "file,node-name=image,filename=" + (folder_ / "image"),
        "--export", "fuse,id=far,node-name=image,writable=on,mountpoint=" + path()});
    is_there_ = test::wait_until([&] {
                  std::error_code none;
                  return std::filesystem::file_size(path(), none) == size_bytes || !process_->is_running();
                }) &&
                process_->is_running();
  }
  ~FarFile() {
    goes_on();
    process_->stop();
  }
  FarFile(const FarFile&) = delete;
  FarFile& operator=(const FarFile&) = delete;
  std::string path() const { return folder_ / "far"; }
  bool is_there() const noexcept { return is_there_; }
  void hangs() const { process_->signal(SIGSTOP); }
  void goes_on() const { process_->signal(SIGCONT); }

 private:
  test::TemporaryFolder folder_;
  std::optional<test::ChildProcess> process_;
  bool is_there_ = false;
};

/// Has it go on where nothing else did in time, so that the test ends.
class Rescue {
 public:
  explicit Rescue(const FarFile& file)
      : thread_([this, &file] {
          std::unique_lock lock(guard_);
          if (ended_.wait_for(lock, limit, [this] { return is_over_; })) return;
          was_needed_ = true;
          file.goes_on();
        }) {}
  /// Whether that was so.
  bool was_needed() {
    {
      const std::lock_guard lock(guard_);
      is_over_ = true;
    }
    ended_.notify_one();
    if (thread_.joinable()) thread_.join();
    return was_needed_;
  }
  ~Rescue() { (void)was_needed(); }
  Rescue(const Rescue&) = delete;
  Rescue& operator=(const Rescue&) = delete;

 private:
  std::mutex guard_;
  std::condition_variable ended_;
  bool is_over_ = false;
  bool was_needed_ = false;
  std::thread thread_;
};

struct Hanging {
  BlockDevice& hung;
  BlockDevice& other;
  const FarFile& far;
  Rescue& rescue;
};

Task<Result<void>> others_go_on(Hanging scene, WriteFlags flags) {
  const std::vector<std::byte> data(4096, std::byte{7});
  TaskGroup hanging(co_await boost::asio::this_coro::executor);
  for (std::uint64_t i = 0; i < requests; ++i) hanging.spawn(scene.hung.write(i * data.size(), data, flags));
  // On a reactor, and on a thread that may block.
  DISKFERRY_CO_CHECK(co_await scene.other.write(0, data, {}));
  DISKFERRY_CO_CHECK(co_await scene.other.flush());
  EXPECT_FALSE(scene.rescue.was_needed()) << "others waited";
  scene.far.goes_on();
  co_return co_await hanging.join();
}

struct HungFile : testing::TestWithParam<WriteFlags> {};

TEST_P(HungFile, KeepsNobodyElseWaiting) {
  FarFile far;
  if (!far.is_there()) GTEST_SKIP() << "NOT TESTED: a file system that hangs. This needs root and /dev/fuse";
  const test::TemporaryFolder near;
  must(test::create(near / "disk", {.size_bytes = size_bytes}));
  const DevicePtr hung = must(open_to_write(far.path()));
  const DevicePtr other = must(open_to_write(near / "disk"));
  far.hangs();
  Rescue rescue(far);
  must(run(others_go_on({*hung, *other, far, rescue}, GetParam())));
  must(run(hung->close()));
  must(run(other->close()));
}

INSTANTIATE_TEST_SUITE_P(
    Writes, HungFile,
    testing::Values(WriteFlags{}, WriteFlags{.fua = true}, WriteFlags{.in_background = true}),
    [](const auto& flags) {
      return std::string(flags.param.fua ? "durable" : flags.param.in_background ? "in_background" : "plain");
    });

}  // namespace
}  // namespace diskferry
