// Whose end a failed move is told to be.
#include "gateway/move/move_failure.hpp"

#include <gtest/gtest.h>

namespace diskferry {
namespace {

struct CauseRow {
  const char* name;
  ErrorKind said;
  MoveEnding seen;
  std::string expected;  ///< words of the message; empty: what the hypervisor said stays
  std::string why = "as the hypervisor says";
};
std::ostream& operator<<(std::ostream& out, const CauseRow& row) {
  return out << row.name;
}
class CauseTest : public testing::TestWithParam<CauseRow> {};

TEST_P(CauseTest, IsNamed) {
  MoveEnding seen = GetParam().seen;
  seen.machine = "g1";
  seen.source_host = "host-a";
  seen.target_host = "host-b";
  const auto cause = cause_of_ending(fail(GetParam().said, "migrate", "g1").why(GetParam().why), seen);
  ASSERT_EQ(cause.has_value(), !GetParam().expected.empty());
  if (!cause) return;
  EXPECT_NE(cause->message().find(GetParam().expected), std::string::npos) << cause->message();
  EXPECT_FALSE(cause->remedy().empty());
  EXPECT_EQ(cause->kind(), ErrorKind::gone) << "nobody cancelled it";
}
INSTANTIATE_TEST_SUITE_P(
    Rows, CauseTest,
    testing::Values(
        CauseRow{"NobodyEnded", ErrorKind::io, {}, ""},
        CauseRow{"AnOperatorCancelled", ErrorKind::cancelled, {}, ""},
        CauseRow{"LibvirtEndedTheTargetInUndoing", ErrorKind::io, {.target_ended = "stopped: failed"}, ""},
        CauseRow{"TheTargetWasDestroyed",
                 ErrorKind::not_found,
                 {.target_ended = "stopped: destroyed"},
                 "waited on host-b for the guest was destroyed"},
        CauseRow{
            "TheTargetIsMissedAndNobodySaidWhy", ErrorKind::not_found, {}, "on host-b for the guest ended"},
        CauseRow{"NobodyTookTheMemory",
                 ErrorKind::io,
                 {.target_ended = "stopped: failed"},
                 "the QEMU that waited on host-b for the guest had ended, or a firewall",
                 "Failed to connect to 'host-b:49152': Connection refused"},
        CauseRow{"TheTargetWasDestroyedBeforeTheMemoryCame",
                 ErrorKind::io,
                 {.was_given_up = true, .target_ended = "stopped: destroyed"},
                 "waited on host-b for the guest was destroyed",
                 "Failed to connect to 'host-b:49152': Connection refused"},
        CauseRow{
            "OurOwnConnectionWasRefused", ErrorKind::io, {}, "", "unable to connect: Connection refused"},
        CauseRow{"TheTargetsQemuWasKilled",
                 ErrorKind::cancelled,
                 {.was_given_up = true, .target_ended = "stopped: failed"},
                 "on host-b for the guest ended: its QEMU"},
        CauseRow{"TheTargetsQemuWasKilledAndLibvirtSaysSo",
                 ErrorKind::io,
                 {.target_ended = "stopped: failed"},
                 "on host-b for the guest ended: its QEMU",
                 "internal error: qemu unexpectedly closed the monitor"},
        CauseRow{"TheTargetsLibvirtIsAway",
                 ErrorKind::gone,
                 {.has_lost_target = true},
                 "libvirt on host-b did not answer any more: as the hypervisor says"},
        CauseRow{
            "TheSourcesLibvirtIsAway", ErrorKind::gone, {.has_lost_source = true}, "libvirt on host-a did"},
        CauseRow{"AConnectionWasLostLater", ErrorKind::io, {.has_lost_target = true}, ""},
        CauseRow{"TheGuestWasDestroyed",
                 ErrorKind::io,
                 {.has_ended = true, .source_ended = "stopped: destroyed", .target_ended = "stopped: failed"},
                 "on host-a the guest was destroyed"},
        CauseRow{"TheGuestShutItselfDown",
                 ErrorKind::io,
                 {.has_ended = true, .source_ended = "stopped: shut down"},
                 "on host-a the guest was shut down while it moved"},
        CauseRow{"TheGuestsQemuWasKilled",
                 ErrorKind::io,
                 {.has_ended = true, .source_ended = "stopped: failed"},
                 "on host-a the guest ended: its QEMU crashed or was killed"},
        CauseRow{
            "TheGuestIsGoneAndNobodySaidWhy", ErrorKind::io, {.has_ended = true}, "the guest ended while"}),
    [](const auto& row) { return row.param.name; });

TEST(Cause, NamesTheHostOfALibvirtUri) {
  EXPECT_EQ(host_of("qemu+tls://host-b/system"), "host-b");
  EXPECT_EQ(host_of("qemu+ssh://root@host-b:22/system"), "host-b");
  EXPECT_EQ(host_of("qemu:///system"), "qemu:///system");
}

}  // namespace
}  // namespace diskferry
