// Libvirt on libvirt's own test driver, which keeps a host with one running domain inside this process.
#include "gateway/hypervisor/libvirt.hpp"

#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;
using test::run;

constexpr auto definition = R"(<domain type='test'><name>guest</name>
  <uuid>12345678-1234-1234-1234-123456789abc</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type>hvm</type></os></domain>)";

class LibvirtTestDriver : public testing::Test {
 protected:
  LibvirtTestDriver() : libvirt_(must(run(Libvirt::connect(test::runtime().context(), "test:///default")))) {}
  ~LibvirtTestDriver() override { (void)run(close(*libvirt_)); }
  static Task<Result<void>> close(Libvirt& libvirt) {
    co_await libvirt.close();
    co_return Result<void>{};
  }
  std::unique_ptr<Libvirt> libvirt_;
};

template <class T>
ErrorKind kind_of(const Result<T>& result) {
  return result ? ErrorKind::internal : result.error().kind();
}

TEST(LibvirtConnect, SaysWhatToDoWhereNobodyAnswers) {
  const auto refused = run(
      Libvirt::connect(test::runtime().context(), "qemu+unix:///system?socket=/nonexistent/libvirt-sock"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("check that libvirt runs there"), std::string::npos)
      << refused.error().message();
}

TEST_F(LibvirtTestDriver, TellsOfItsHost) {
  EXPECT_EQ(libvirt_->uri(), "test:///default");
  const auto host = must(run(libvirt_->host()));
  EXPECT_GE(host.libvirt_version, 9'000'000U);
  EXPECT_GT(host.memory_bytes, 0U);
  EXPECT_GT(host.cpus, 0U);
  EXPECT_THAT(host.networks, testing::Contains("default"));
  EXPECT_THAT(host.network_bridges, testing::Contains(testing::Pair("default", "virbr0")));
  EXPECT_THAT(host.interfaces, testing::Contains("eth1"));
  EXPECT_THAT(host.capabilities_xml, testing::HasSubstr("<capabilities>"));
}

TEST_F(LibvirtTestDriver, DescribesADomain) {
  const auto vm = must(run(libvirt_->describe("test")));
  EXPECT_EQ(vm.name, "test");
  EXPECT_EQ(vm.state, VmState::running);
  EXPECT_TRUE(vm.is_persistent);
  EXPECT_FALSE(vm.has_snapshots);
  EXPECT_THAT(must(run(libvirt_->xml("test", Libvirt::Xml::live))), testing::HasSubstr("<name>test</name>"));
  const auto domains = must(run(libvirt_->domains()));
  ASSERT_EQ(domains.size(), 1U);
  EXPECT_EQ(domains[0].name, "test");
  EXPECT_EQ(domains[0].uuid.size(), 36U);
  EXPECT_TRUE(domains[0].is_active);
}

TEST_F(LibvirtTestDriver, TakesADomainThroughItsLife) {
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::absent);
  must(run(libvirt_->define(definition)));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::shut_off);
  must(run(libvirt_->start("guest")));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::running);
  must(run(libvirt_->suspend("guest")));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::paused);
  must(run(libvirt_->resume("guest")));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::running);
  must(run(libvirt_->destroy("guest")));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::shut_off);
  must(run(libvirt_->undefine("guest")));
  EXPECT_EQ(must(run(libvirt_->state("guest"))), VmState::absent);
  must(run(libvirt_->undefine("guest")));
}

TEST_F(LibvirtTestDriver, SaysWhatIsWrong) {
  EXPECT_EQ(kind_of(run(libvirt_->describe("nobody"))), ErrorKind::not_found);
  EXPECT_EQ(kind_of(run(libvirt_->define("<domain"))), ErrorKind::invalid_argument);
  EXPECT_EQ(kind_of(run(libvirt_->start_post_copy("test"))), ErrorKind::unsupported);
  const auto failed = run(libvirt_->describe("nobody"));
  EXPECT_EQ(failed.error().object(), "nobody");
  EXPECT_THAT(failed.error().why(), testing::HasSubstr("Domain not found"));
}

TEST_F(LibvirtTestDriver, CannotMigrate) {
  const LibvirtMigration migration{.domain = "test", .destination = "test:///default"};
  EXPECT_EQ(kind_of(run(libvirt_->migrate(migration))), ErrorKind::unsupported);
}

/// What a handler was told, on whichever thread.
struct Told {
  std::mutex guard;
  std::vector<LibvirtEvent> events;
  bool has(LibvirtEvent::Kind kind, std::string_view detail) {
    std::lock_guard lock(guard);
    return std::ranges::any_of(events, [&](const auto& one) {
      return one.domain == "test" && one.kind == kind && one.detail == detail;
    });
  }
};

TEST_F(LibvirtTestDriver, TellsOfEvents) {
  const auto told = std::make_shared<Told>();
  must(run(libvirt_->watch([told](const LibvirtEvent& event) {
    std::lock_guard lock(told->guard);
    told->events.push_back(event);
  })));
  must(run(libvirt_->suspend("test")));
  must(run(libvirt_->resume("test")));
  EXPECT_TRUE(
      test::wait_until([&] { return told->has(LibvirtEvent::Kind::suspended, "suspended: paused"); }));
  EXPECT_TRUE(test::wait_until([&] { return told->has(LibvirtEvent::Kind::resumed, "resumed: unpaused"); }));
  EXPECT_GT(told->events.front().at_ns, 0U);
  must(run(close(*libvirt_)));
  EXPECT_EQ(told.use_count(), 1) << "the handler is kept after close()";
}

TEST_F(LibvirtTestDriver, IsGoneAfterClose) {
  must(run(close(*libvirt_)));
  EXPECT_EQ(kind_of(run(libvirt_->host())), ErrorKind::gone);
  const LibvirtMigration migration{.domain = "test", .destination = "test:///default"};
  EXPECT_EQ(kind_of(run(libvirt_->migrate(migration))), ErrorKind::gone);
  must(run(close(*libvirt_)));
}

TEST_F(LibvirtTestDriver, AsksNoCpuOfAMachineWithoutOne) {
  EXPECT_EQ(must(run(libvirt_->compare_cpu({.name = "test"}))), "identical");
  EXPECT_EQ(kind_of(run(libvirt_->compare_cpu(
                {.cpu_xml = "<cpu mode='host-passthrough'/>", .cpu_mode = "host-passthrough"}))),
            ErrorKind::unsupported);
}

TEST(LibvirtConnect, OpensAndClosesAgainAndAgain) {
  for (int i = 0; i < 20; ++i) {
    auto libvirt = must(run(Libvirt::connect(test::runtime().context(), "test:///default")));
    EXPECT_EQ(must(run(libvirt->state("test"))), VmState::running);
  }
}

struct BadUri {
  std::string_view uri;
  ErrorKind kind;
};
TEST(LibvirtConnect, FailsWhereNobodyIs) {
  for (const auto& [uri, kind] : {BadUri{"qemu+unix:///system?socket=/nonexistent", ErrorKind::gone},
                                  BadUri{"qemu+tcp://127.0.0.1:1/system", ErrorKind::gone},
                                  BadUri{"nonsense:///system", ErrorKind::gone}}) {
    SCOPED_TRACE(uri);
    const auto failed = run(Libvirt::connect(test::runtime().context(), std::string(uri)));
    ASSERT_FALSE(failed);
    EXPECT_EQ(to_string(failed.error().kind()), to_string(kind)) << failed.error().message();
  }
}
}  // namespace
}  // namespace diskferry
