// Collecting facts from two hosts of libvirt's test driver and a gateway that looks at this machine's files.
#include "gateway/move/preflight_collect.hpp"

#include "diskferry/units.hpp"
#include "gateway/copy/identity.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <future>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

/// What the other gateway would say of this machine's own files.
class FilesGateway final : public TargetGateway {
 public:
  explicit FilesGateway(DriverContext& context) : context_(context) {}
  GatewayFacts said{.name = "b", .version = "1", .machine_id = "id-b", .nbd_port = 1};
  bool has_other_files = false;  ///< the same names, and other storage behind them
  bool has_changed = false;      ///< a guest wrote since this host looked
  std::string other_file{};      ///< this one alone is another one there
  bool hangs = false;

  Task<Result<GatewayFacts>> facts() override {
    if (hangs) DISKFERRY_CO_CHECK(co_await never_.wait());
    co_return said;
  }
  Task<Result<TargetDiskFacts>> look(TargetDiskRequest request) override {
    DISKFERRY_CO_TRY(const ImageUri uri, ImageUri::parse(request.uri));
    TargetDiskFacts found{.exists = std::filesystem::exists(uri.path()), .space_available_bytes = gib};
    DISKFERRY_CO_TRY(found.identity, co_await storage_identity(context_, uri));
    if (has_other_files || has_changed) found.identity += "-there";
    co_return found;
  }
  Task<Result<StorageView>> see(StorageQuestion question) override {
    const bool is_other = has_other_files || question.uri == other_file;
    DISKFERRY_CO_TRY(StorageView seen, co_await view_storage(context_, std::move(question)));
    if (is_other) ++seen.inode;
    co_return seen;
  }
  Task<Result<PreparedDisk>> prepare(TargetDiskRequest) override { co_return refuse(); }
  Task<Result<void>> finish(std::string, TargetEnd) override { co_return refuse(); }
  Task<Result<TargetMachineAnswer>> machine(TargetMachineCall) override { co_return TargetMachineAnswer{}; }
  Result<std::string> export_uri(const PreparedDisk&, unsigned) const override { return refuse(); }
  std::string certificate_name() const override { return "b.example.org"; }
  Task<Result<GatewayFacts>> reach(std::string address) override {
    reached = std::move(address);
    if (!sees) co_return unexpected(fail(ErrorKind::gone, "connect", reached));
    co_return *sees;
  }
  std::optional<GatewayFacts> sees{};
  std::string reached{};
  Task<void> close() override { co_return; }

 private:
  static std::unexpected<Error> refuse() {
    ADD_FAILURE() << "preflight changes nothing";
    return unexpected(fail(ErrorKind::permission, "change something"));
  }
  DriverContext& context_;
  AsyncEvent never_;
};

class Collect : public testing::Test {
 protected:
  Collect() : gateway_(test::runtime().context()) {
    std::ofstream(vda_).write(std::string(64 * kib, 'a').data(), 64 * kib);
    std::ofstream(vdb_).write(std::string(64 * kib, 'b').data(), 64 * kib);
    std::filesystem::resize_file(vda_, mib);
    source_ = connect("a", disk_xml("vda", vda_) + disk_xml("vdb", vdb_));
    target_ = connect("b", {});
  }
  ~Collect() override {
    (void)run(close(*source_));
    (void)run(close(*target_));
  }
  static Task<Result<void>> close(Libvirt& libvirt) {
    co_await libvirt.close();
    co_return Result<void>{};
  }
  static std::string disk_xml(const std::string& target, const std::string& path) {
    return fmt::format(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>"
        "<target dev='{}' bus='virtio'/></disk>",
        path, target);
  }
  /// A host with one running machine.
  std::unique_ptr<Libvirt> connect(const std::string& name, const std::string& disks) {
    const std::string path = folder_ / (name + ".xml");
    std::ofstream(path) << fmt::format(
        "<node><domain type='test'><name>on-{}</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>"
        "<os><type arch='i686'>hvm</type></os><devices>{}</devices></domain></node>",
        name, disks);
    return must(run(Libvirt::connect(test::runtime().context(), "test://" + path)));
  }
  MoveRequest request() const {
    return {.domain = "on-a", .destination = "x", .disks = {{"vda", new_, "raw"}}};
  }
  PreflightPeers peers() { return peers_of(*source_); }
  PreflightPeers peers_of(Libvirt& source) {
    PreflightPeers all{.source = source};
    all.target = target_.get();
    all.gateway = &gateway_;
    all.here = {.name = "a", .version = "1", .machine_id = "id-a"};
    return all;
  }
  Result<PreflightFacts> collect(PreflightPeers peers, MoveRequest request) {
    return run(collect_preflight(test::runtime().context(), std::move(peers), std::move(request), false));
  }
  static bool is_unknown(const PreflightFacts& facts, const std::string& subject) {
    return std::ranges::find(facts.unknown, subject, &UnknownFact::subject) != facts.unknown.end();
  }

  test::TemporaryFolder folder_;
  const std::string vda_ = folder_ / "vda.raw";
  const std::string vdb_ = folder_ / "vdb.raw";
  const std::string new_ = folder_ / "new.raw";
  FilesGateway gateway_;
  std::unique_ptr<Libvirt> source_;
  std::unique_ptr<Libvirt> target_;
};

TEST_F(Collect, LooksAtEverything) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  gateway_.said.time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count() + 100000;
  const PreflightFacts facts = must(collect(peers(), request()));
  EXPECT_EQ(facts.machine.name, "on-a");
  EXPECT_EQ(facts.machine.state, VmState::running);
  EXPECT_GE(facts.source.libvirt_version, 9000000u);
  ASSERT_TRUE(facts.target);
  ASSERT_EQ(facts.machines_there.size(), 1u);
  EXPECT_EQ(facts.machines_there[0].name, "on-b");
  EXPECT_EQ(facts.cpu, CpuFit::fits);
  ASSERT_TRUE(facts.there);
  EXPECT_EQ(facts.there->name, "b");
  EXPECT_TRUE(facts.round_trip_us);
  ASSERT_TRUE(facts.clock_skew_ms);
  EXPECT_GT(*facts.clock_skew_ms, 30000);
  EXPECT_LE(*facts.clock_skew_ms, 100000);
  ASSERT_EQ(facts.disks.size(), 2u);
  const DiskFacts& vda = facts.disks[0];
  EXPECT_GT(vda.size_bytes, 0u);  // the hypervisor's word counts, and the test driver's is one for all files
  ASSERT_TRUE(vda.allocated_bytes);
  EXPECT_LT(*vda.allocated_bytes, mib);
  EXPECT_EQ(vda.move->uri, new_);
  ASSERT_TRUE(vda.target);
  EXPECT_FALSE(vda.target->exists);
  EXPECT_EQ(vda.target->space_available_bytes, gib);
  EXPECT_FALSE(vda.is_shared);
  EXPECT_FALSE(std::filesystem::exists(new_));
}

TEST_F(Collect, HasTheOtherGatewayReachThisOne) {
  PreflightPeers both = peers();
  both.address_here = "https://a:10810";
  PreflightFacts facts = must(collect(std::move(both), request()));
  EXPECT_EQ(gateway_.reached, "https://a:10810");
  EXPECT_TRUE(facts.way_back_problem);
  EXPECT_EQ(facts.gateway_certificate_name, "b.example.org");
  gateway_.sees = GatewayFacts{.name = "a", .machine_id = "id-a"};
  PreflightPeers again = peers();
  again.address_here = "https://a:10810";
  facts = must(collect(std::move(again), request()));
  ASSERT_TRUE(facts.seen_from_there);
  EXPECT_EQ(facts.seen_from_there->machine_id, "id-a");
  EXPECT_FALSE(facts.way_back_problem);
}

TEST_F(Collect, ProvesThatADiskIsShared) {
  const PreflightFacts facts = must(collect(peers(), request()));
  EXPECT_TRUE(facts.disks.at(1).is_shared);
}

TEST_F(Collect, DoesNotTakeTheSameNameForTheSameStorage) {
  gateway_.has_other_files = true;
  const PreflightFacts facts = must(collect(peers(), request()));
  EXPECT_FALSE(facts.disks.at(1).is_shared);
}

TEST_F(Collect, FindsTheSourceUnderAnotherName) {
  std::filesystem::create_symlink(vda_, new_);
  const PreflightFacts facts = must(collect(peers(), request()));
  ASSERT_TRUE(facts.disks.at(0).target);
  EXPECT_EQ(facts.disks[0].target->identity, facts.disks[0].identity);
  const auto findings = examine(facts);
  EXPECT_NE(std::ranges::find(findings, "same-storage", &Finding::code), findings.end());
}

TEST_F(Collect, FindsTheSourceThoughTheGuestIsWriting) {
  std::filesystem::create_symlink(vda_, new_);
  gateway_.has_changed = true;
  const PreflightFacts facts = must(collect(peers(), request()));
  EXPECT_NE(facts.disks.at(0).target->identity, facts.disks[0].identity);
  EXPECT_EQ(facts.disks[0].own_storage, vda_);
}

TEST_F(Collect, ProvesEveryLayer) {
  const std::string top = folder_ / "top.qcow2";
  const auto made =
      test::run_program({"qemu-img", "create", "-q", "-f", "qcow2", "-b", vdb_, "-F", "raw", top});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  auto host =
      connect("c", "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='" + top +
                       "'/><target dev='vda' bus='virtio'/></disk>");
  PreflightPeers all = peers_of(*host);
  gateway_.other_file = vdb_;
  const MoveRequest nothing_named{.domain = "on-c", .destination = "x"};
  PreflightFacts facts = must(collect(std::move(all), nothing_named));
  EXPECT_FALSE(facts.disks.at(0).is_shared);
  EXPECT_NE(facts.disks[0].share_reason.find(vdb_ + ": "), std::string::npos) << facts.disks[0].share_reason;
  gateway_.other_file.clear();
  facts = must(collect(peers_of(*host), nothing_named));
  EXPECT_TRUE(facts.disks.at(0).is_shared) << facts.disks[0].share_reason;
  (void)run(close(*host));
}

TEST_F(Collect, GoesOnWithoutTheOtherSide) {
  PreflightPeers alone = peers();
  alone.target = nullptr;
  alone.target_problem = fail(ErrorKind::gone, "connect");
  alone.gateway = nullptr;
  alone.gateway_problem = fail(ErrorKind::gone, "connect");
  const PreflightFacts facts = must(collect(std::move(alone), request()));
  EXPECT_FALSE(facts.target);
  EXPECT_TRUE(facts.target_problem);
  EXPECT_TRUE(facts.gateway_problem);
  ASSERT_EQ(facts.disks.size(), 2u);
  EXPECT_GT(facts.disks[0].size_bytes, 0u);
  EXPECT_FALSE(facts.disks[0].identity.empty());
  EXPECT_FALSE(facts.disks[0].target);
  EXPECT_FALSE(facts.disks[1].is_shared);
}

TEST_F(Collect, GoesOnWithoutADisk) {
  std::filesystem::remove(vdb_);
  const PreflightFacts facts = must(collect(peers(), request()));
  EXPECT_TRUE(is_unknown(facts, "vdb"));
  EXPECT_FALSE(is_unknown(facts, "vda"));
  EXPECT_FALSE(facts.disks.at(1).is_shared);
  EXPECT_TRUE(facts.disks.at(0).target);
}

TEST_F(Collect, AMachineThatIsNotThereIsAFact) {
  MoveRequest other = request();
  other.domain = "nobody";
  const PreflightFacts facts = must(collect(peers(), std::move(other)));
  EXPECT_EQ(facts.machine.state, VmState::absent);
  const auto findings = examine(facts);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].code, "machine-missing");
}

TEST_F(Collect, AGatewayThatHangsIsWaitedForOnce) {
  gateway_.hangs = true;
  FakeClock clock;
  DriverContext& real = test::runtime().context();
  DriverContext context{real.reactors, real.blocking_pool, real.buffers, clock};
  auto collected = std::async(std::launch::async,
                              [&] { return run(collect_preflight(context, peers(), request(), false)); });
  // Every wait of the collection has its limit on this clock: let them pass, one after the other.
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (collected.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready &&
         std::chrono::steady_clock::now() < give_up) {
    const auto wake = clock.first_wake();
    if (wake && gateway_.hangs) clock.advance(*wake - clock.now());
  }
  const PreflightFacts facts = must(collected.get());
  ASSERT_TRUE(facts.gateway_problem);
  EXPECT_EQ(facts.gateway_problem->kind(), ErrorKind::timed_out);
  EXPECT_FALSE(facts.there);
  EXPECT_EQ(facts.disks.size(), 2u);
}

TEST_F(Collect, MeasuresWhatItCan) {
  PreflightFacts facts = must(collect(peers(), request()));
  facts.request.bytes_per_s = 5;
  const auto measured = must(run(measure_for_prediction(test::runtime().context(), *source_, facts, 1, 7)));
  EXPECT_EQ(measured.input.disk_bytes, *facts.disks[0].allocated_bytes);
  EXPECT_EQ(measured.input.memory_bytes, 64 * mib);
  EXPECT_EQ(measured.input.link_bytes_per_s, 7u);
  EXPECT_EQ(measured.input.bound_bytes_per_s, 5u);
  EXPECT_FALSE(measured.unmeasured.empty());  // the test driver counts nothing
}

}  // namespace
}  // namespace diskferry
