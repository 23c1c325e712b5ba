// The pure parts of the iSCSI driver: URIs, what a LUN tells of itself, what answers mean, whose reservation
// it is.
#include "diskferry/units.hpp"
#include "drivers/iscsi/command.hpp"
#include "drivers/iscsi/endpoint.hpp"
#include "drivers/iscsi/logins.hpp"
#include "drivers/iscsi/lun.hpp"
#include "drivers/iscsi/reservation.hpp"
#include "drivers/iscsi/status.hpp"
#include "tests/support/test_runtime.hpp"

#include <gtest/gtest.h>

namespace diskferry::iscsi {
namespace {
using test::must;

// --- endpoint ---------------------------------------------------------------------------------------------

constexpr std::string_view target = "iqn.2026-01.com.example:disks";

Result<Endpoint> endpoint(const std::string& text) {
  DISKFERRY_TRY(const ImageUri uri, ImageUri::parse(text));
  return parse_endpoint(uri);
}
std::string uri(std::string_view authority, std::string_view rest) {
  return "iscsi://" + std::string(authority) + "/" + std::string(target) + std::string(rest);
}

TEST(IscsiEndpoint, TakesPortalTargetAndLun) {
  const Endpoint one = must(endpoint(uri("server", "/1")));
  EXPECT_EQ(one.portal, (Portal{"server", 3260}));
  EXPECT_EQ(one.target, target);
  EXPECT_EQ(one.lun, 1u);
  EXPECT_TRUE(one.user.empty());
  EXPECT_TRUE(one.reserves);
  EXPECT_FALSE(one.steals_reservation);
  const Endpoint all = must(endpoint(uri("alice@[::1]:860",
                                         "/16383?password-file=/p&target-user=bob&target-password-file=/t&"
                                         "initiator=iqn.2026-01.com.example:host&header-digest=crc32c&"
                                         "steal-reservation=yes&connections=3&stall-timeout=1.5")));
  EXPECT_EQ(all.portal, (Portal{"::1", 860}));
  EXPECT_EQ(all.lun, 16383u);
  EXPECT_EQ(all.user, "alice");
  EXPECT_EQ(all.password_file, "/p");
  EXPECT_EQ(all.target_user, "bob");
  EXPECT_EQ(all.target_password_file, "/t");
  EXPECT_EQ(all.initiator, "iqn.2026-01.com.example:host");
  EXPECT_EQ(all.header_digest, HeaderDigest::crc32c);
  EXPECT_TRUE(all.steals_reservation);
  EXPECT_EQ(all.connections, 3u);
  EXPECT_EQ(all.stall_limit, std::chrono::milliseconds(1500));
}

TEST(IscsiEndpoint, APasswordInTheUriIsRefusedAndNotShown) {
  const auto refused = endpoint(uri("alice:hunter2hunter2@server", "/1"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::invalid_argument);
  EXPECT_EQ(refused.error().message().find("hunter2"), std::string::npos) << refused.error().message();
  EXPECT_NE(refused.error().message().find("password-file"), std::string::npos) << refused.error().message();
  const auto as_key = endpoint(uri("alice@server", "/1?password=hunter2hunter2"));
  ASSERT_FALSE(as_key);
  EXPECT_EQ(as_key.error().message().find("hunter2"), std::string::npos) << as_key.error().message();
  // libiscsi's own form: not a URI at all.
  const auto foreign = endpoint(uri("alice%hunter2hunter2@server", "/1"));
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().message().find("hunter2"), std::string::npos) << foreign.error().message();
}

TEST(IscsiEndpoint, RefusesWhatMakesNoSense) {
  const std::string long_name(300, 'a');
  for (const std::string& text : {std::string("iscsi://server"),
                                  std::string("iscsi://server/"),
                                  std::string("iscsi://server/1"),
                                  uri("", "/1"),
                                  uri("server", ""),
                                  uri("server", "/"),
                                  uri("server", "/-1"),
                                  uri("server", "/16384"),
                                  uri("server", "/1x"),
                                  uri("server", "/1/2"),
                                  std::string("iscsi://server/disks/1"),
                                  std::string("iscsi://server/iqn./1"),
                                  std::string("iscsi://server/iqn.a%00b/1"),
                                  std::string("iscsi://server/iqn.a%20b/1"),
                                  std::string("iscsi://server/iqn.a%0ab/1"),
                                  "iscsi://server/iqn." + long_name + "/1",
                                  uri("server", "/1?password-file=/p"),
                                  uri("server", "/1?target-user=bob"),
                                  uri("alice@server", "/1?target-password-file=/t"),
                                  uri("alice@server", "/1?password-file="),
                                  uri("server", "/1?initiator=host"),
                                  uri("server", "/1?header-digest=md5"),
                                  uri("server", "/1?connections=17"),
                                  uri("server", "/1?connections=0"),
                                  uri("server", "/1?reservation=no&steal-reservation=yes"),
                                  uri("server", "/1?stall-timeout=0"),
                                  uri("server", "/1?connect-timeout=0"),
                                  uri(long_name + "@server", "/1")})
    EXPECT_FALSE(endpoint(text)) << text;
}

TEST(IscsiPortal, TakesWhatTargetsSend) {
  EXPECT_EQ(must(parse_portal("10.0.0.1:3260,1")), (Portal{"10.0.0.1", 3260}));
  EXPECT_EQ(must(parse_portal("10.0.0.1")), (Portal{"10.0.0.1", 3260}));
  EXPECT_EQ(must(parse_portal("[fe80::1]:860,2")), (Portal{"fe80::1", 860}));
  EXPECT_EQ(must(parse_portal("storage-2.example:860")), (Portal{"storage-2.example", 860}));
  EXPECT_EQ(to_string(must(parse_portal("[fe80::1]"))), "[fe80::1]:3260");
  for (const char* text : {"", ",1", ":3260", "[", "[]", "[::1", "host:", "host:0", "host:65536", "host:1x",
                           "a b", "host/../x", "[::1]x:1", "h\x1b[2J"})
    EXPECT_FALSE(parse_portal(text)) << text;
}

TEST(IscsiPassword, IsTheFirstLineOfItsFile) {
  EXPECT_EQ(must(password_of("secret of alice\nmore", "/p")), "secret of alice");
  EXPECT_EQ(must(password_of("secret\r\n", "/p")), "secret");
  EXPECT_EQ(must(password_of("secret", "/p")), "secret");
  for (const std::string& content :
       {std::string(), std::string("\nsecret"), std::string(256, 'x'), std::string("hunter2\0x", 9)}) {
    const auto refused = password_of(content, "/p");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message().find("hunter2"), std::string::npos);
  }
}

TEST(IscsiInitiator, IsThatOfTheHost) {
  EXPECT_EQ(initiator_of("## comment\nInitiatorName=iqn.1993-08.org.debian:01:abc  \n"),
            "iqn.1993-08.org.debian:01:abc");
  EXPECT_EQ(initiator_of("#InitiatorName=iqn.a\n"), "");
  EXPECT_EQ(initiator_of("InitiatorName=not a name\n"), "");
  EXPECT_TRUE(is_iscsi_name(initiator_for_host("Host_1.example")));
  EXPECT_TRUE(is_iscsi_name(initiator_for_host("")));
  EXPECT_TRUE(is_iscsi_name(initiator_for_host(std::string(255, 'h'))));
}

// --- the LUN ----------------------------------------------------------------------------------------------

std::vector<std::byte> bytes(std::initializer_list<int> values, std::size_t size = 0) {
  std::vector<std::byte> made;
  for (const int value : values) made.push_back(static_cast<std::byte>(value));
  made.resize(std::max(size, made.size()));
  return made;
}

TEST(IscsiLun, IsADiskThatIsThere) {
  must(take_inquiry(bytes({0x00, 0, 5, 2, 31}, 36)));
  EXPECT_EQ(take_inquiry(bytes({0x7f, 0, 5, 2, 31}, 36)).error().kind(), ErrorKind::not_found);
  EXPECT_EQ(take_inquiry(bytes({0x0c, 0, 5, 2, 31}, 36)).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(take_inquiry(bytes({0x05, 0, 5, 2, 31}, 36)).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(take_inquiry(bytes({0x00})).error().kind(), ErrorKind::protocol);
}

TEST(IscsiLun, HasTheSizeThatItSays) {
  LunFacts facts;
  must(take_capacity(bytes({0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0}, 32), facts));
  EXPECT_EQ(facts.size_bytes, 0x200000u * 512);
  EXPECT_EQ(facts.block_bytes, 512u);
  EXPECT_EQ(facts.physical_block_bytes, 4096u);
  EXPECT_TRUE(facts.is_thin);
  EXPECT_TRUE(facts.unmapped_reads_zero);
  must(take_capacity(bytes({255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0x10, 0}, 32), facts));
  EXPECT_EQ(facts.size_bytes, 0u) << "an empty one";
  EXPECT_FALSE(facts.is_thin);
  for (const auto& answer :
       {bytes({}), bytes({0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2}),
        bytes({0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 8}, 32),  // 520
        bytes({0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 32), bytes({0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0}, 32),
        bytes({0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0}, 32)})
    EXPECT_FALSE(take_capacity(answer, facts));
}

std::vector<std::byte> identification(std::vector<std::vector<std::byte>> designators) {
  std::vector<std::byte> page = bytes({0, 0x83, 0, 0});
  for (const auto& one : designators) page.insert(page.end(), one.begin(), one.end());
  page[3] = static_cast<std::byte>(page.size() - 4);
  return page;
}
std::vector<std::byte> designator(int type, std::vector<std::byte> content, int association = 0) {
  std::vector<std::byte> made = bytes({1, association << 4 | type, 0, static_cast<int>(content.size())});
  made.insert(made.end(), content.begin(), content.end());
  return made;
}
std::string name_in(std::vector<std::byte> page) {
  LunFacts facts;
  take_identification(page, facts);
  return facts.world_wide_name;
}

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto chars = std::as_bytes(std::span(text));
  return {chars.begin(), chars.end()};
}

const auto extended = bytes({0x60, 0x01, 0x40, 0x5a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
const auto registered = bytes({0x50, 0x01, 0x40, 0x5a, 1, 2, 3, 4});

TEST(IscsiLun, HasTheNameThatTheKernelGivesItsDisk) {
  const auto eui = bytes({0, 0x25, 0x38, 1, 2, 3, 4, 5});
  EXPECT_EQ(name_in(identification({designator(3, extended)})), "naa.6001405a0102030405060708090a0b0c");
  EXPECT_EQ(name_in(identification({designator(3, registered), designator(3, extended)})),
            "naa.6001405a0102030405060708090a0b0c");
  EXPECT_EQ(name_in(identification({designator(3, registered), designator(2, eui)})), "naa.5001405a01020304");
  EXPECT_EQ(name_in(identification({designator(2, eui)})), "eui.0025380102030405");
  EXPECT_EQ(
      name_in(identification({designator(8, bytes_of("naa.6001405abcdef000")), designator(3, extended)})),
      "naa.6001405abcdef000");
  EXPECT_EQ(name_in(identification({designator(3, extended, 1)})), "") << "that of the port";
}

TEST(IscsiLun, HasNoNameWhereOthersMayHaveTheSame) {
  EXPECT_EQ(
      name_in(identification({designator(3, bytes({0x60, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 1, 0, 1}))})),
      "")
      << "tgt's, in all its copies";
  EXPECT_EQ(name_in(identification({designator(3, bytes({0x30, 0, 0, 1, 0, 0, 0, 1}))})), "")
      << "assigned locally";
  for (const char* cut_off : {"naa", "naa.", "naa.6", "eui.", "eui.00"})
    EXPECT_EQ(name_in(identification({designator(8, bytes_of(cut_off))})), "") << cut_off;
  EXPECT_EQ(name_in(identification({designator(1, bytes({'d', 'f', '1'}))})), "") << "a vendor's";
  EXPECT_EQ(name_in(identification({designator(8, bytes({'i', 'q', 'n', '.', 'a', 'b', 'c', 'd'}))})), "");
}

TEST(IscsiLun, AnswersThatAreCutOffOrLieAreNoMoreThanTheyAre) {
  const auto page = identification({designator(3, extended)});
  for (std::size_t size = 0; size < page.size(); ++size)
    EXPECT_EQ(name_in({page.begin(), page.begin() + static_cast<std::ptrdiff_t>(size)}), "");
  auto lying = page;
  lying[2] = std::byte{0xff};  // the page
  EXPECT_EQ(name_in(lying), "naa.6001405a0102030405060708090a0b0c");
  lying[7] = std::byte{0xff};  // the designator
  EXPECT_EQ(name_in(lying), "");
  lying[7] = std::byte{0};
  EXPECT_EQ(name_in(lying), "");
  LunFacts facts;
  take_mode({}, facts);
  take_block_limits({}, facts);
  take_provisioning({}, facts);
  take_characteristics({}, facts);
  take_serial({}, facts);
  EXPECT_TRUE(facts.may_have_cache);
  EXPECT_EQ(facts.transfer_blocks_max, 0u);
  EXPECT_TRUE(pages_in(bytes({0, 0, 0xff, 0xff})).empty());
}

TEST(IscsiLun, TellsItsLimitsAndWhatItCanDo) {
  LunFacts facts;
  auto limits = bytes({0, 0xb0, 0, 0x3c}, 64);
  limits[10] = std::byte{0x10};
  limits[20] = limits[21] = limits[22] = limits[23] = std::byte{0xff};
  limits[41] = std::byte{2};
  take_block_limits(limits, facts);
  EXPECT_EQ(facts.transfer_blocks_max, 4096u);
  EXPECT_EQ(facts.unmap_blocks_max, UINT32_MAX);
  EXPECT_EQ(facts.write_same_blocks_max, 2u << 16);
  take_provisioning(bytes({0, 0xb2, 0, 4, 0, 0xe4, 2, 0}), facts);
  EXPECT_TRUE(facts.can_unmap);
  EXPECT_TRUE(facts.can_write_same_unmap);
  take_mode(bytes({23, 0, 0x90, 0, 0x08, 0x12, 0x00}, 24), facts);
  EXPECT_TRUE(facts.is_write_protected);
  EXPECT_TRUE(facts.can_fua);
  EXPECT_FALSE(facts.may_have_cache);
  take_mode(bytes({31, 0, 0x00, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x88, 0x12, 0x04}, 32), facts);
  EXPECT_FALSE(facts.is_write_protected);
  EXPECT_TRUE(facts.may_have_cache) << "after a block descriptor";
  EXPECT_TRUE(is_operation_supported(bytes({0, 3})));
  EXPECT_FALSE(is_operation_supported(bytes({0, 1})));
  EXPECT_FALSE(is_operation_supported({}));
  take_serial(bytes({0, 0x80, 0, 6, ' ', ' ', 'a', '\x1b', 'b', ' '}), facts);
  EXPECT_EQ(facts.serial, "a\\x1bb");
}

TEST(IscsiLun, IsTheSameOrNot) {
  const LunFacts then{.world_wide_name = "naa.1", .serial = "s", .size_bytes = 1024};
  LunFacts now = then;
  EXPECT_EQ(difference(then, now), "");
  now.size_bytes = 2048;
  EXPECT_EQ(difference(then, now), "") << "grown";
  now.size_bytes = 512;
  EXPECT_NE(difference(then, now), "");
  now = then;
  now.serial = "t";
  EXPECT_NE(difference(then, now), "");
  now = then;
  now.block_bytes = 4096;
  EXPECT_NE(difference(then, now), "");
}

TEST(IscsiLun, IsToldFromOthersByNamesThatOnlyTheTargetGives) {
  const auto facts_of = [](std::vector<std::vector<std::byte>> designators) {
    LunFacts facts;
    take_identification(identification(std::move(designators)), facts);
    return facts;
  };
  const auto local = [](int last) { return designator(3, bytes({0x30, 0, 0, 1, 0, 0, 0, last})); };
  const auto vendors = [](std::string_view text) { return designator(1, bytes_of(text)); };
  const LunFacts then = facts_of({local(1), vendors("df1")});
  EXPECT_EQ(then.world_wide_name, "");
  EXPECT_EQ(difference(then, facts_of({local(1), vendors("df1")})), "");
  EXPECT_NE(difference(then, facts_of({local(2), vendors("df1")})), "");
  EXPECT_NE(difference(then, facts_of({local(1), vendors("df2")})), "");
  EXPECT_NE(difference(then, facts_of({local(1)})), "");
  EXPECT_NE(difference(then, facts_of({})), "");
  EXPECT_EQ(difference(then, facts_of({designator(4, bytes({0, 0, 0, 9}), 1), local(1), vendors("df1")})), "")
      << "by another port";
  EXPECT_EQ(difference(then, facts_of({local(1), vendors("df1"), designator(6, bytes({0, 0, 0, 9}))})), "")
      << "put into a group";
}

std::vector<std::byte> lba_status(std::vector<std::array<std::uint32_t, 3>> descriptors) {
  std::vector<std::byte> answer(8 + 16 * descriptors.size());
  store_big<std::uint32_t>(answer.data(), static_cast<std::uint32_t>(answer.size() - 4));
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    std::byte* const at = answer.data() + 8 + 16 * i;
    store_big<std::uint64_t>(at, descriptors[i][0]);
    store_big<std::uint32_t>(at + 8, descriptors[i][1]);
    at[12] = static_cast<std::byte>(descriptors[i][2]);
  }
  return answer;
}
Extent extent(std::uint64_t offset, std::uint64_t length, bool is_hole) {
  Extent made{.offset = offset, .length = length};
  made.is_hole = made.reads_zero = is_hole;
  return made;
}

TEST(IscsiExtents, BeginAndEndWhereTheyWereAskedFor) {
  LunFacts facts{.size_bytes = 100 * 512, .unmapped_reads_zero = true};
  const auto answer = lba_status({{0, 10, 0}, {10, 10, 1}, {20, 80, 0}});
  EXPECT_EQ(extents_in(answer, {5 * 512, 20 * 512}, facts, 9),
            (std::vector{extent(5 * 512, 5 * 512, false), extent(10 * 512, 10 * 512, true),
                         extent(20 * 512, 5 * 512, false)}));
  EXPECT_EQ(extents_in(answer, {0, 100 * 512}, facts, 1), (std::vector{extent(0, 10 * 512, false)}));
  facts.unmapped_reads_zero = false;
  const auto holes = extents_in(answer, {10 * 512, 512}, facts, 9);
  ASSERT_EQ(holes.size(), 1u);
  EXPECT_TRUE(holes[0].is_hole);
  EXPECT_FALSE(holes[0].reads_zero) << "what it reads as is not defined";
}

TEST(IscsiExtents, OnlyWhatIsKnownToBeUnmappedReadsAsZeros) {
  const LunFacts facts{.size_bytes = 100 * 512, .unmapped_reads_zero = true};
  struct Row {
    const char* name;
    std::uint32_t status;
    bool is_hole;
    bool reads_zero;
  };
  for (const Row& row : {Row{"mapped or unknown", 0, false, false}, Row{"deallocated", 1, true, true},
                         Row{"anchored", 2, false, true}, Row{"mapped", 3, false, false},
                         Row{"unknown", 4, false, false}, Row{"reserved", 15, false, false}}) {
    const auto found = extents_in(lba_status({{0, 100, row.status}}), {0, 100 * 512}, facts, 9);
    ASSERT_EQ(found.size(), 1u) << row.name;
    EXPECT_EQ(found[0].length, 100u * 512) << row.name;
    EXPECT_EQ(found[0].is_hole, row.is_hole) << row.name;
    EXPECT_EQ(found[0].reads_zero, row.reads_zero) << row.name;
  }
}

TEST(IscsiExtents, AnswersThatMakeNoSenseEndTheList) {
  const LunFacts facts{.size_bytes = 100 * 512, .unmapped_reads_zero = true};
  const Range all{0, 100 * 512};
  EXPECT_TRUE(extents_in({}, all, facts, 9).empty());
  EXPECT_TRUE(extents_in(lba_status({{1, 10, 1}}), all, facts, 9).empty()) << "after the start";
  EXPECT_TRUE(extents_in(lba_status({{0, 0, 1}}), all, facts, 9).empty());
  EXPECT_EQ(extents_in(lba_status({{0, 10, 1}, {11, 10, 1}}), all, facts, 9).size(), 1u) << "a gap";
  EXPECT_EQ(extents_in(lba_status({{0, UINT32_MAX, 1}}), all, facts, 9),
            (std::vector{extent(0, 100 * 512, true)}));
  auto lying = lba_status({{0, 10, 1}});
  lying[0] = std::byte{0xff};
  EXPECT_EQ(extents_in(lying, all, facts, 9).size(), 1u);
  lying.resize(20);
  EXPECT_TRUE(extents_in(lying, all, facts, 9).empty());
}

// --- answers ----------------------------------------------------------------------------------------------

struct JudgeRow {
  const char* name;
  int status;
  Sense sense;
  Verdict verdict;
  ErrorKind kind = ErrorKind::io;
};
class IscsiJudge : public testing::TestWithParam<JudgeRow> {};

TEST_P(IscsiJudge, GivesTheVerdict) {
  const JudgeRow& row = GetParam();
  EXPECT_EQ(judge(row.status, row.sense), row.verdict);
  if (row.verdict != Verdict::refused) return;
  const Error error = refusal({.how = Answer::How::given, .status = row.status, .sense = row.sense}, "write",
                              "iscsi://h/t/1");
  EXPECT_EQ(error.kind(), row.kind) << error.message();
  EXPECT_FALSE(error.why().empty());
}

constexpr JudgeRow judge_rows[] = {
    {"good", 0, {}, Verdict::done},
    {"recovered", 2, {1, 0x1700}, Verdict::done},
    {"busy", 0x08, {}, Verdict::later},
    {"task_set_full", 0x28, {}, Verdict::later},
    {"task_aborted", 0x40, {}, Verdict::later},
    {"becoming_ready", 2, {2, 0x0401}, Verdict::later},
    {"aborted", 2, {0xb, 0x0000}, Verdict::later},
    {"reset", 2, {6, 0x2900}, Verdict::new_look},
    {"power_on", 2, {6, 0x2901}, Verdict::new_look},
    {"capacity_changed", 2, {6, 0x2a09}, Verdict::new_look},
    {"inquiry_changed", 2, {6, 0x3f03}, Verdict::new_look},
    {"lun_gone", 2, {5, 0x2500}, Verdict::new_look},
    {"other_luns_changed", 2, {6, 0x3f0e}, Verdict::again},
    {"reservation_released", 2, {6, 0x2a04}, Verdict::again},
    {"thin_threshold", 2, {6, 0x3807}, Verdict::again},
    {"full", 2, {7, 0x2707}, Verdict::refused, ErrorKind::no_space},
    {"protected", 2, {7, 0x2700}, Verdict::refused, ErrorKind::read_only},
    {"medium", 2, {3, 0x1100}, Verdict::refused, ErrorKind::io},
    {"hardware", 2, {4, 0x4400}, Verdict::refused, ErrorKind::io},
    {"offline", 2, {2, 0x0403}, Verdict::refused, ErrorKind::gone},
    {"unknown_command", 2, {5, 0x2000}, Verdict::refused, ErrorKind::unsupported},
    {"unknown_field", 2, {5, 0x2400}, Verdict::refused, ErrorKind::unsupported},
    {"length_of_parameters", 2, {5, 0x1a00}, Verdict::refused, ErrorKind::unsupported},
    {"field_of_parameters", 2, {5, 0x2600}, Verdict::refused, ErrorKind::unsupported},
    {"unknown_parameter", 2, {5, 0x2601}, Verdict::refused, ErrorKind::unsupported},
    {"value_of_parameter", 2, {5, 0x2602}, Verdict::refused, ErrorKind::unsupported},
    {"other_illegal_request", 2, {5, 0x5501}, Verdict::refused, ErrorKind::io},
    {"past_the_end", 2, {5, 0x2100}, Verdict::refused, ErrorKind::out_of_range},
    {"deferred", 2, {3, 0x0c00, true}, Verdict::refused, ErrorKind::io},
    {"deferred_attention", 2, {6, 0x2900, true}, Verdict::refused, ErrorKind::io},
    {"reserved", 0x18, {}, Verdict::refused, ErrorKind::in_use},
    {"unheard_of", 0x77, {}, Verdict::refused, ErrorKind::io},
};
INSTANTIATE_TEST_SUITE_P(Rows, IscsiJudge, testing::ValuesIn(judge_rows),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(IscsiRefusal, SaysWhatMayBeWrongAndWhatTheTargetSaid) {
  const Error error =
      refusal({.how = Answer::How::given, .status = 2, .sense = {3, 0x1100}}, "write", "name");
  EXPECT_NE(error.message().find("MEDIUM ERROR 11/00"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("free space"), std::string::npos) << error.message();
}

TEST(IscsiLogin, FailsForWhatTheTargetSays) {
  const auto kind_of = [](std::string_view said) { return login_error(said, "name").kind(); };
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Authentication failure(513)"),
            ErrorKind::permission);
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Authorization failure(514)"), ErrorKind::permission);
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Target not found(515)"), ErrorKind::not_found);
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Too many connections(518)"), ErrorKind::in_use);
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Service unavailable(769)"), ErrorKind::gone);
  EXPECT_EQ(kind_of("Failed to log in to target. Status: Missing parameter(519)"), ErrorKind::protocol);
  EXPECT_EQ(kind_of("Authentication failed. Invalid CHAP_R response from the target"), ErrorKind::permission);
  EXPECT_EQ(kind_of("Failed to log in to target. It did not return CHAP_N during SECNEG."),
            ErrorKind::permission);
  EXPECT_EQ(kind_of(""), ErrorKind::gone);
  EXPECT_EQ(kind_of("(513)"), ErrorKind::gone);
}

// --- reservations -----------------------------------------------------------------------------------------

TEST(IscsiKey, TellsWhoMadeIt) {
  const Maker maker = make_maker("this host", 4194303);
  const std::uint64_t key = make_key(maker, 0xffffffff);
  EXPECT_EQ(maker_of(key), maker);
  EXPECT_NE(make_key(maker, 1), make_key(maker, 2));
  EXPECT_NE(make_maker("this host", 1).host, make_maker("that host", 1).host);
  EXPECT_EQ(maker_of(0x1234), std::nullopt);
  EXPECT_EQ(maker_of(0), std::nullopt);
}

TEST(IscsiKey, WhatWasLeftBehindIsOfAProcessThatEnded) {
  const Maker self = make_maker("this host", 100);
  const std::uint64_t ours = make_key(self, 1);
  const Processes processes{.self = self,
                            .is_running = [](std::uint32_t process) { return process == 200; },
                            .is_in_use = [ours](std::uint64_t key) { return key == ours; }};
  EXPECT_FALSE(is_left_behind(ours, processes));
  EXPECT_TRUE(is_left_behind(make_key(self, 2), processes)) << "of a device that was lost with its target";
  EXPECT_TRUE(is_left_behind(make_key(make_maker("this host", 300), 1), processes));
  EXPECT_FALSE(is_left_behind(make_key(make_maker("this host", 200), 1), processes));
  EXPECT_FALSE(is_left_behind(make_key(make_maker("that host", 300), 1), processes));
  EXPECT_FALSE(is_left_behind(0x1234, processes));
  EXPECT_FALSE(obstacle(std::nullopt, processes, "name"));
  EXPECT_FALSE(obstacle(Reservation{make_key(self, 2), 5}, processes, "name"));
  for (const std::uint64_t key :
       {std::uint64_t{0}, std::uint64_t{0x1234}, make_key(make_maker("that host", 300), 1),
        make_key(make_maker("this host", 200), 1)}) {
    const auto error = obstacle(Reservation{key, 5}, processes, "name");
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::in_use);
    // A process number may be that of another program by now, which does not end for our sake.
    EXPECT_NE(error->remedy().find("steal-reservation=yes"), std::string::npos) << error->remedy();
  }
}

TEST(IscsiReservation, IsInTheAnswer) {
  EXPECT_EQ(keys_in(bytes({0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0})),
            (std::vector<std::uint64_t>{7, 256}));
  EXPECT_EQ(keys_in(bytes({0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2})),
            (std::vector<std::uint64_t>{7}));
  EXPECT_TRUE(keys_in({}).empty());
  const auto held =
      reservation_in(bytes({0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 5, 0, 0}));
  ASSERT_TRUE(held);
  EXPECT_EQ(held->key, 7u);
  EXPECT_EQ(held->type, 5);
  EXPECT_FALSE(reservation_in(bytes({0, 0, 0, 1, 0, 0, 0, 0})));
  EXPECT_FALSE(reservation_in(bytes({0, 0, 0, 1, 0, 0, 0, 16, 0, 0})));
}

// --- changes that were given up ---------------------------------------------------------------------------

TEST(IscsiLogins, AChangeThatWasGivenUpMayStillBeDoneUntilTheNextLogin) {
  Logins logins;
  EXPECT_FALSE(logins.may_still_change());
  logins.abandon(0);
  EXPECT_FALSE(logins.may_still_change()) << "never sent, as there was no session";
  logins.add();
  const std::uint64_t first = logins.last();
  EXPECT_FALSE(logins.may_still_change());
  logins.abandon(first);
  EXPECT_TRUE(logins.may_still_change());
  logins.abandon(0);
  EXPECT_TRUE(logins.may_still_change()) << "another one, which was not sent";
  logins.add();
  EXPECT_FALSE(logins.may_still_change());
  logins.abandon(first);
  EXPECT_FALSE(logins.may_still_change()) << "given up when its session was back already";
  logins.abandon(logins.last());
  logins.abandon(first);
  EXPECT_TRUE(logins.may_still_change());
}

// --- commands ---------------------------------------------------------------------------------------------

TEST(IscsiCommand, IsAsTheStandardHasIt) {
  using Cdb = std::array<std::uint8_t, 16>;
  const Blocks blocks{.first = 0x0102030405060708, .count = 0x0a0b0c0d};
  EXPECT_EQ(read16(blocks).bytes, (Cdb{0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}));
  EXPECT_EQ(write16(blocks, true).bytes, (Cdb{0x8a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}));
  EXPECT_EQ(write_same16(blocks, true).bytes, (Cdb{0x93, 8, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}));
  EXPECT_EQ(get_lba_status(7, 24).bytes, (Cdb{0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 24}));
  EXPECT_EQ(unmap().bytes, (Cdb{0x42, 0, 0, 0, 0, 0, 0, 0, 24}));
  EXPECT_EQ(synchronize_cache16().bytes, (Cdb{0x91}));
  EXPECT_EQ(inquiry_page(0x83, 255).bytes, (Cdb{0x12, 1, 0x83, 0, 255}));
  EXPECT_EQ(persistent_reserve_out(ReserveOut::preempt).bytes, (Cdb{0x5f, 4, 5, 0, 0, 0, 0, 0, 24}));
  EXPECT_EQ(persistent_reserve_in(ReserveIn::read_keys, 0x1008).bytes,
            (Cdb{0x5e, 0, 0, 0, 0, 0, 0, 0x10, 8}));
  EXPECT_TRUE(write16(blocks, false).changes_content);
  EXPECT_FALSE(read16(blocks).changes_content);
  EXPECT_FALSE(synchronize_cache16().changes_content);
}

}  // namespace
}  // namespace diskferry::iscsi
