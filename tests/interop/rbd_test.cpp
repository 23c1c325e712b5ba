// The RBD driver on a real cluster, where the contract suite does not go: what is known of an image before it
// is written to, who may do what, clones and snapshots, images without an object map, and a cluster that is
// silent.
#include "diskferry/task_group.hpp"
#include "diskferry/units.hpp"
#include "drivers/rbd/rbd_driver.hpp"
#include "drivers/registry.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/storage_server.hpp"
#include "tests/support/test_runtime.hpp"

#include <fmt/format.h>
#include <random>

/// OpenSSL keeps a generator of random numbers for each thread: that of a thread of Ceph's which still waits
/// for a silent monitor when the program ends is nobody's.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:CRYPTO_zalloc\n";
}

namespace diskferry::test {
namespace {

const StorageServer& cluster() {
  static const StorageServer server("ceph");
  return server;
}

/// Ceph's own tools, as the administrator.
std::string tool(std::vector<std::string> words) {
  words.insert(words.begin() + 1, {"-c", cluster().variable("CEPH_CONF")});
  const auto done = run_program(words);
  EXPECT_EQ(done.exit_code, 0) << fmt::format("{}", words.front()) << ": " << done.err;
  return done.out;
}

ImageUri uri(const std::string& image, const std::string& keys = "") {
  return must(
      ImageUri::parse(fmt::format("rbd://rbd/{}?conf={}{}", image, cluster().variable("CEPH_CONF"), keys)));
}

/// Makes a user once, and gives the key that names it.
std::string user(const std::string& name, const std::string& profile) {
  const std::string keyring = fmt::format("{}/ceph.client.{}.keyring", cluster().folder(), name);
  tool({"ceph", "auth", "get-or-create", "client." + name, "mon", "profile rbd", "osd",
        fmt::format("profile {} pool=rbd", profile), "-o", keyring});
  return "&id=" + name;
}

DevicePtr open(const ImageUri& name, bool writable) {
  return must(run(open_storage(runtime().context(), name, {.writable = writable})));
}
Result<VolumeFacts> look(const ImageUri& name, bool for_writing = true) {
  return run(rbd_driver.look(runtime().context(), name, {.for_writing = for_writing}));
}
void create(const ImageUri& name, std::uint64_t size_bytes) {
  must(run(create_storage(runtime().context(), name, {.size_bytes = size_bytes})));
}

TEST(RbdLook, TellsOfAnImageTheSameUnderEveryName) {
  create(uri("known"), 3 * mib);
  const auto facts = must(look(uri("known")));
  EXPECT_TRUE(facts.exists);
  EXPECT_TRUE(facts.can_be_emptied);
  EXPECT_EQ(facts.size_bytes, 3 * mib);
  EXPECT_EQ(facts.block_bytes, 1u);
  EXPECT_TRUE(facts.obstacles.empty());
  EXPECT_EQ(facts.free_bytes, std::nullopt) << "nobody counts it without a manager";
  EXPECT_TRUE(facts.identity.starts_with("rbd|")) << facts.identity;
  const auto other_name = must(
      ImageUri::parse(fmt::format("rbd:rbd/known:conf={}{}", cluster().variable("CEPH_CONF"), ":id=admin")));
  EXPECT_EQ(must(look(other_name)).identity, facts.identity);
  create(uri("other"), 3 * mib);
  EXPECT_NE(must(look(uri("other"))).identity, facts.identity);
}

TEST(RbdLook, KnowsWhatIsNotThereFromWhereItCannotBe) {
  const auto facts = must(look(uri("nothing")));
  EXPECT_FALSE(facts.exists);
  EXPECT_TRUE(facts.identity.empty());
  EXPECT_TRUE(facts.obstacles.empty());
  const auto no_pool = look(
      must(ImageUri::parse(fmt::format("rbd://no-such-pool/x?conf={}", cluster().variable("CEPH_CONF")))));
  ASSERT_FALSE(no_pool);
  EXPECT_EQ(no_pool.error().kind(), ErrorKind::not_found);
  EXPECT_FALSE(look(uri("nothing", "&data-pool=no-such-pool")));
}

TEST(RbdLook, NamesObstacles) {
  create(uri("used"), 1 * mib);
  const auto reader = user("reader", "rbd-read-only");
  for (const char* image : {"used", "nothing"}) {
    const auto facts = must(look(uri(image, reader)));
    ASSERT_EQ(facts.obstacles.size(), 1u) << image;
    EXPECT_EQ(facts.obstacles.front().kind(), ErrorKind::permission);
    EXPECT_TRUE(must(look(uri(image, reader), false)).obstacles.empty()) << "nobody asked";
  }
  const auto writer = open(uri("used"), true);
  const auto facts = must(look(uri("used")));
  ASSERT_EQ(facts.obstacles.size(), 1u);
  EXPECT_EQ(facts.obstacles.front().kind(), ErrorKind::in_use) << facts.obstacles.front().message();
  const auto second =
      run(open_storage(runtime().context(), uri("used", "&in-use-timeout=0"), {.writable = true}));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::in_use);
  must(run(writer->close()));
  EXPECT_TRUE(must(look(uri("used"))).obstacles.empty());
}

TEST(RbdUser, OfOnePoolDoesAll) {
  const auto mover = user("mover", "rbd");
  const auto name = uri("own", mover);
  create(name, 1 * mib);
  const auto device = open(name, true);
  must(run(device->write(0, pattern(0, 1 * mib), {.fua = true})));
  must(run(device->close()));
  must(run(rbd_driver.remove(runtime().context(), name)));
  EXPECT_FALSE(must(look(name)).exists);
}

TEST(RbdCreate, ReplacesOnlyWhenAskedTo) {
  create(uri("twice"), 1 * mib);
  const std::string id = must(look(uri("twice"))).identity;
  auto device = open(uri("twice"), true);
  EXPECT_TRUE(device->info().starts_zeroed);
  must(run(device->write(0, pattern(0, 1 * mib), {})));
  must(run(device->close()));
  auto& context = runtime().context();
  const auto again = run(create_storage(context, uri("twice"), {.size_bytes = 2 * mib}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind(), ErrorKind::already_exists);
  must(run(create_storage(context, uri("twice"), {.size_bytes = 2 * mib, .replace = true})));
  device = open(uri("twice"), true);
  EXPECT_EQ(device->size_bytes(), 2 * mib);
  EXPECT_TRUE(device->info().starts_zeroed);
  std::vector<std::byte> all(2 * mib);
  must(run(device->read(0, all)));
  EXPECT_TRUE(is_zero(all));
  must(run(device->close()));
  EXPECT_EQ(must(look(uri("twice"))).identity, id) << "it is the same image";
}

TEST(RbdGrowth, FollowsWritesAndIsTrimmedAtTheEnd) {
  create(uri("grows"), 0);
  const auto device = open(uri("grows"), true);
  ASSERT_TRUE(device->info().can_grow);
  must(run(device->write(5 * mib, pattern(5 * mib, 100), {})));
  EXPECT_EQ(device->size_bytes(), 5 * mib + 100);
  must(run(device->write_zeroes({6 * mib, 1000}, {})));
  EXPECT_EQ(device->size_bytes(), 6 * mib + 1000);
  std::vector<std::byte> all(6 * mib + 1000);
  must(run(device->read(0, all)));
  EXPECT_TRUE(is_zero(std::span(all).first(5 * mib)));
  EXPECT_EQ(first_difference(std::span(all).subspan(5 * mib, 100), 5 * mib), SIZE_MAX);
  must(run(device->close()));
  EXPECT_EQ(must(look(uri("grows"))).size_bytes, 6 * mib + 1000);
}

/// Every zero that is promised is one, and of what was never written most is promised.
void check_extents(const ImageUri& name, std::uint64_t zero_bytes_min) {
  const auto device = open(name, false);
  std::vector<std::byte> all(device->size_bytes());
  must(run(device->read(0, all)));
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{3 * mib + 12345}}) {
    std::uint64_t zeros = 0;
    for (std::uint64_t at = begin; at < all.size();) {
      for (const Extent& extent : must(run(device->extents({at, all.size() - at}, 7)))) {
        at = extent.end();
        if (!extent.reads_zero) continue;
        zeros += extent.length;
        EXPECT_TRUE(is_zero(std::span(all).subspan(extent.offset, extent.length)))
            << extent.offset << "+" << extent.length;
      }
    }
    if (begin == 0) EXPECT_GE(zeros, zero_bytes_min);
  }
  must(run(device->close()));
}
void write_here_and_there(const ImageUri& name, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto device = open(name, true);
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t offset = random() % (device->size_bytes() - 128 * kib);
    must(run(device->write(offset, pattern(offset, 1 + random() % (128 * kib)), {})));
    const std::uint64_t zeroed = random() % (device->size_bytes() - 8 * mib);
    must(run(device->write_zeroes({zeroed, random() % (8 * mib)}, {.may_unmap = i % 2 == 0})));
  }
  must(run(device->close()));
}

constexpr std::uint64_t chain_bytes = 96 * mib + 512;
struct ChainRow {
  const char* name;
  const char* parent_features;
  const char* parent_object;
  const char* clone_features;
  const char* clone_object;
  std::uint64_t zero_bytes_min;
};
constexpr const char* mapped = "layering,exclusive-lock,object-map,fast-diff";
class RbdChain : public testing::TestWithParam<ChainRow> {};
TEST_P(RbdChain, PromisesOnlyTrueZeros) {
  const auto& row = GetParam();
  const std::string base = fmt::format("base_{}", row.name);
  const std::string clone = fmt::format("clone_{}", row.name);
  tool({"rbd", "create", "--size", fmt::format("{}B", chain_bytes), "--image-feature", row.parent_features,
        "--object-size", row.parent_object, "rbd/" + base});
  write_here_and_there(uri(base), 1);
  check_extents(uri(base), row.zero_bytes_min);
  tool({"rbd", "snap", "create", "--no-progress", fmt::format("rbd/{}@one", base)});
  write_here_and_there(uri(base), 2);
  check_extents(uri(base), 0);
  check_extents(uri(base + "@one"), row.zero_bytes_min);
  tool({"rbd", "clone", "--rbd-default-clone-format", "2", "--image-feature", row.clone_features,
        "--object-size", row.clone_object, "--stripe-unit", row.clone_object, "--stripe-count", "1",
        fmt::format("rbd/{}@one", base), "rbd/" + clone});
  check_extents(uri(clone), row.zero_bytes_min);
  write_here_and_there(uri(clone), 3);
  check_extents(uri(clone), 0);
  const auto device = open(uri(clone), true);
  EXPECT_FALSE(device->info().starts_zeroed);
  must(run(device->close()));
}
INSTANTIATE_TEST_SUITE_P(Rows, RbdChain,
                         testing::Values(ChainRow{"mapped", mapped, "4M", mapped, "4M", 32 * mib},
                                         ChainRow{"large_parent", mapped, "32M", mapped, "1M", 0},
                                         ChainRow{"large_clone", mapped, "1M", mapped, "16M", 8 * mib},
                                         ChainRow{"plain", "layering", "4M", "layering", "4M", 32 * mib},
                                         ChainRow{"plain_parent", "layering", "1M", mapped, "4M", 32 * mib}),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(RbdExtents, AreTrueWhereTheMapIsInvalidAndWhereTheImageIsStriped) {
  tool({"rbd", "create", "--size", "64M", "--image-feature", mapped, "rbd/invalid"});
  write_here_and_there(uri("invalid"), 4);
  const std::string id = must(look(uri("invalid"))).identity;
  // What a client does that could not write the map.
  tool({"rados", "-p", "rbd", "rm", "rbd_object_map." + id.substr(id.rfind('|') + 1)});
  check_extents(uri("invalid"), 0);
  tool({"rbd", "create", "--size", "64M", "--image-feature", mapped, "--image-feature", "striping",
        "--stripe-unit", "64K", "--stripe-count", "4", "rbd/striped"});
  write_here_and_there(uri("striped"), 5);
  check_extents(uri("striped"), 0);
}

Task<Result<void>> open_and_forget(ImageUri name) {
  DISKFERRY_CO_TRY(auto device, co_await open_storage(runtime().context(), std::move(name), {}));
  co_return co_await device->close();
}
Task<Result<void>> cancel_while_it_opens(ImageUri name) {
  TaskGroup group(runtime().reactor(0));
  group.spawn(open_and_forget(std::move(name)));
  DISKFERRY_CO_CHECK(co_await runtime().context().clock.sleep_for(std::chrono::milliseconds(300)));
  group.cancel();
  co_return co_await group.join();
}

TEST(RbdSilence, OfTheMonitorIsWaitedForAsLongAsAskedAndNotAfterACancellation) {
  StorageServer server("ceph");
  const auto name = [&](int seconds) {
    return must(ImageUri::parse(
        fmt::format("rbd://rbd/x?conf={}&connect-timeout={}", server.variable("CEPH_CONF"), seconds)));
  };
  server.tell("hang");
  const auto begin = std::chrono::steady_clock::now();
  const auto refused = run(open_storage(runtime().context(), name(1), {}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::gone) << refused.error().message();
  const auto cancelled = run(cancel_while_it_opens(name(20)));
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().kind(), ErrorKind::cancelled) << cancelled.error().message();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
  server.tell("cont");
}

}  // namespace
}  // namespace diskferry::test
