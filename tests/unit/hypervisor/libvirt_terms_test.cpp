// What a migration, an event and a URI become in libvirt's terms.
#include "gateway/hypervisor/libvirt_event_names.hpp"
#include "gateway/hypervisor/libvirt_migration.hpp"
#include "gateway/hypervisor/libvirt_uri.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
LibvirtMigration plain() {
  return {.domain = "g1", .destination = "qemu+tls://b/system"};
}

struct FlagRow {
  std::string_view name;
  void (*change)(LibvirtMigration&);
  unsigned flags;  // besides those of plain()
};
constexpr unsigned plain_flags = VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_LIVE | VIR_MIGRATE_PERSIST_DEST;
const FlagRow flag_rows[] = {
    {"Plain", [](LibvirtMigration&) {}, 0},
    {"Disks", [](LibvirtMigration& m) { m.disks = {"vda"}; }, VIR_MIGRATE_NON_SHARED_DISK},
    {"SynchronousDisks",
     [](LibvirtMigration& m) {
       m.disks = {"vda"};
       m.synchronous_disk_writes = true;
     },
     VIR_MIGRATE_NON_SHARED_DISK | VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES},
    {"SynchronousWithoutDisks", [](LibvirtMigration& m) { m.synchronous_disk_writes = true; }, 0},
    {"Undefine", [](LibvirtMigration& m) { m.undefine_source = true; }, VIR_MIGRATE_UNDEFINE_SOURCE},
    {"ProvedStorage", [](LibvirtMigration& m) { m.is_storage_proved = true; }, VIR_MIGRATE_UNSAFE},
    {"Tls", [](LibvirtMigration& m) { m.tls = true; }, VIR_MIGRATE_TLS},
    {"AutoConverge", [](LibvirtMigration& m) { m.auto_converge = true; }, VIR_MIGRATE_AUTO_CONVERGE},
    {"Paused", [](LibvirtMigration& m) { m.arrives_paused = true; }, VIR_MIGRATE_PAUSED},
    {"PostCopy", [](LibvirtMigration& m) { m.post_copy = true; }, VIR_MIGRATE_POSTCOPY},
    {"Parallel", [](LibvirtMigration& m) { m.parallel_connections = 2; }, VIR_MIGRATE_PARALLEL},
    {"Compressed", [](LibvirtMigration& m) { m.compression = "xbzrle"; }, VIR_MIGRATE_COMPRESSED},
};
class MigrationFlags : public testing::TestWithParam<FlagRow> {};
TEST_P(MigrationFlags, AreLibvirts) {
  auto migration = plain();
  GetParam().change(migration);
  EXPECT_EQ(migration_flags(migration), plain_flags | GetParam().flags);
}
INSTANTIATE_TEST_SUITE_P(Table, MigrationFlags, testing::ValuesIn(flag_rows),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(MigrationFlags, CanBeWithoutTheDefaults) {
  auto migration = plain();
  migration.is_live = false;
  migration.persist_destination = false;
  EXPECT_EQ(migration_flags(migration), static_cast<unsigned>(VIR_MIGRATE_PEER2PEER));
}

TEST(MigrationParameters, AreNoneForAPlainOne) {
  LibvirtParameters parameters;
  add_migration_parameters(plain(), parameters);
  EXPECT_EQ(parameters.size(), 0U);
}

TEST(MigrationParameters, CarryEverythingThatWasSet) {
  auto migration = plain();
  migration.destination_xml = "<domain/>";
  migration.persistent_xml = "<domain>2</domain>";
  migration.disks = {"vda", "vdb"};
  migration.disks_uri = "unix:///run/x.sock";
  migration.memory_uri = "tcp://10.0.0.2";
  migration.memory_bytes_per_s = 10 << 20;
  migration.parallel_connections = 4;
  migration.compression = "xbzrle";
  LibvirtParameters parameters;
  add_migration_parameters(migration, parameters);
  EXPECT_EQ(parameters.text("destination_xml"), "<domain/>");
  EXPECT_EQ(parameters.text("persistent_xml"), "<domain>2</domain>");
  EXPECT_EQ(parameters.text("disks_uri"), "unix:///run/x.sock");
  EXPECT_EQ(parameters.text("migrate_uri"), "tcp://10.0.0.2");
  EXPECT_EQ(parameters.text("compression"), "xbzrle");
  EXPECT_EQ(parameters.number("bandwidth"), 10U);
  EXPECT_EQ(parameters.number("parallel.connections"), 4U);
  std::vector<std::string> disks;
  for (unsigned i = 0; i < parameters.size(); ++i) {
    const auto& one = parameters.data()[i];
    if (std::string_view(one.field) == "migrate_disks") disks.emplace_back(one.value.s);
  }
  EXPECT_THAT(disks, testing::ElementsAre("vda", "vdb"));
}

TEST(MigrationBandwidth, IsRoundedSoThatTheBoundHolds) {
  EXPECT_EQ(bandwidth_mib_per_s(1), 1U);
  EXPECT_EQ(bandwidth_mib_per_s((1 << 20) - 1), 1U);
  EXPECT_EQ(bandwidth_mib_per_s((2 << 20) - 1), 1U);
  EXPECT_EQ(bandwidth_mib_per_s(2 << 20), 2U);
  EXPECT_EQ(bandwidth_mib_per_s(0), INT64_MAX >> 20);
  EXPECT_EQ(bandwidth_mib_per_s(UINT64_MAX), INT64_MAX >> 20);
}

TEST(MigrationCheck, RefusesWhatLibvirtWouldRefuseLate) {
  EXPECT_TRUE(check_migration(plain()));
  auto nowhere = plain();
  nowhere.destination.clear();
  EXPECT_FALSE(check_migration(nowhere));
  auto secret = plain();
  secret.tls = true;
  secret.disks = {"vda"};
  secret.disks_uri = "unix:///run/x.sock";
  EXPECT_FALSE(check_migration(secret));
  secret.disks_uri = "tcp://gateway:10809";
  EXPECT_TRUE(check_migration(secret));
  auto torn = plain();
  torn.persistent_xml = "<domain/>";
  torn.persist_destination = false;
  EXPECT_FALSE(check_migration(torn));
  auto waiting = plain();
  waiting.arrives_paused = true;
  EXPECT_TRUE(check_migration(waiting));
  waiting.post_copy = true;
  EXPECT_FALSE(check_migration(waiting));
  auto wide = plain();
  wide.parallel_connections = 256;
  EXPECT_FALSE(check_migration(wide));
}

TEST(LibvirtParametersOfReplies, ReadEveryIntegerType) {
  LibvirtParameters parameters;
  int capacity = 0;
  ASSERT_EQ(virTypedParamsAddLLong(parameters.items(), parameters.count(), &capacity, "negative", -1), 0);
  ASSERT_EQ(virTypedParamsAddLLong(parameters.items(), parameters.count(), &capacity, "long", 5), 0);
  ASSERT_EQ(virTypedParamsAddUInt(parameters.items(), parameters.count(), &capacity, "unsigned", 6), 0);
  ASSERT_EQ(virTypedParamsAddString(parameters.items(), parameters.count(), &capacity, "text", "7"), 0);
  EXPECT_EQ(parameters.number("negative"), std::nullopt);
  EXPECT_EQ(parameters.number("long"), 5U);
  EXPECT_EQ(parameters.number("unsigned"), 6U);
  EXPECT_EQ(parameters.number("text"), std::nullopt);
  EXPECT_EQ(parameters.number("absent"), std::nullopt);
}

struct EventRow {
  int event;
  int detail;
  LibvirtEvent::Kind kind;
  std::string_view text;
};
TEST(LibvirtEvents, AreToldInWords) {
  constexpr EventRow rows[] = {
      {VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED, LibvirtEvent::Kind::suspended,
       "suspended: migrated"},
      {VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED, LibvirtEvent::Kind::suspended,
       "suspended: post-copy failed"},
      {VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_MIGRATED, LibvirtEvent::Kind::resumed,
       "resumed: migrated"},
      {VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT, LibvirtEvent::Kind::stopped,
       "stopped: from snapshot"},
      {VIR_DOMAIN_EVENT_CRASHED, VIR_DOMAIN_EVENT_CRASHED_PANICKED, LibvirtEvent::Kind::crashed,
       "crashed: panicked"},
      {VIR_DOMAIN_EVENT_PMSUSPENDED, 0, LibvirtEvent::Kind::other, "sleeping: to memory"},
      {VIR_DOMAIN_EVENT_STARTED, 99, LibvirtEvent::Kind::started, "started: 99"},
      {99, 1, LibvirtEvent::Kind::other, "event 99"},
      {-1, -1, LibvirtEvent::Kind::other, "event -1"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.text);
    EXPECT_EQ(event_kind(row.event), row.kind);
    EXPECT_EQ(event_text(row.event, row.detail), row.text);
  }
}

TEST(LibvirtUri, AsksNobodyForAPassword) {
  EXPECT_EQ(without_prompts("qemu+ssh://host/system"), "qemu+ssh://host/system?no_tty=1");
  EXPECT_EQ(without_prompts("qemu+ssh://host/system?keyfile=/x"),
            "qemu+ssh://host/system?keyfile=/x&no_tty=1");
  EXPECT_EQ(without_prompts("qemu+ssh://host/system?no_tty=0"), "qemu+ssh://host/system?no_tty=0");
  EXPECT_EQ(without_prompts("qemu+tls://host/system"), "qemu+tls://host/system");
  EXPECT_EQ(without_prompts("qemu:///system"), "qemu:///system");
}
}  // namespace
}  // namespace diskferry
