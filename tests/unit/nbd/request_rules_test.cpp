// The rules of requests, row by row.
#include "gateway/nbd/request_rules.hpp"

#include "diskferry/units.hpp"

#include <gtest/gtest.h>

namespace diskferry::nbd_server {
namespace {

constexpr std::uint64_t size_bytes = 1000 * 1000 + 1;
constexpr std::uint16_t flags_writable = flag_has_flags | flag_send_flush | flag_send_fua | flag_send_trim |
                                         flag_send_write_zeroes | flag_send_cache | flag_send_fast_zero;
constexpr std::uint16_t flags_reading =
    flag_has_flags | flag_send_flush | flag_send_fua | flag_send_cache | flag_read_only;

struct Row {
  const char* name;
  Command command;
  std::uint16_t flags;
  std::uint64_t offset;
  std::uint64_t length;
  NbdErrno expected;
  RequestTerms terms = {};
};
RequestTerms writable(ReplyStyle style = ReplyStyle::structured) {
  RequestTerms terms{.size_bytes = size_bytes, .transmission_flags = flags_writable, .style = style};
  if (style != ReplyStyle::simple) terms.transmission_flags |= flag_send_df;
  if (style == ReplyStyle::extended) terms.transmission_flags |= flag_block_status_payload;
  terms.has_contexts = style != ReplyStyle::simple;
  return terms;
}
RequestTerms reading() {
  RequestTerms terms = writable();
  terms.transmission_flags = flags_reading | flag_send_df;
  return terms;
}
RequestTerms in_blocks(std::uint32_t block) {
  RequestTerms terms = writable();
  terms.block_bytes = block;
  return terms;
}
RequestTerms without_contexts() {
  RequestTerms terms = writable();
  terms.has_contexts = false;
  return terms;
}
RequestTerms without_fast_zero() {
  RequestTerms terms = writable();
  terms.transmission_flags &= static_cast<std::uint16_t>(~(flag_send_fast_zero | flag_send_trim));
  return terms;
}

constexpr NbdErrno ok = NbdErrno::none;
constexpr NbdErrno inval = NbdErrno::inval;
constexpr NbdErrno nospc = NbdErrno::nospc;
constexpr NbdErrno perm = NbdErrno::perm;
constexpr std::uint64_t huge = std::uint64_t{1} << 63;

class RequestRules : public testing::TestWithParam<Row> {};

TEST_P(RequestRules, Decide) {
  const Row& row = GetParam();
  const Request request{.flags = row.flags,
                        .type = static_cast<std::uint16_t>(row.command),
                        .cookie = 7,
                        .offset = row.offset,
                        .length = row.length};
  const Verdict verdict = judge(request, row.terms);
  EXPECT_EQ(verdict.error, row.expected) << verdict.text;
  EXPECT_FALSE(verdict.disconnect);
  if (row.expected != ok) EXPECT_FALSE(verdict.text.empty());
}

const Row rows[] = {
    {"ReadInside", Command::read, 0, 0, 4096, ok, writable()},
    {"ReadToTheLastByte", Command::read, 0, size_bytes - 1, 1, ok, writable()},
    {"ReadOutOfRangeIsInvalid", Command::read, 0, size_bytes - 1, 2, inval, writable()},
    {"ReadThatWrapsIsInvalid", Command::read, 0, ~std::uint64_t{0}, 2, inval, writable()},
    {"ReadOverThePayloadLimit",
     Command::read,
     0,
     0,
     payload_bytes_default + 1,
     inval,
     {.size_bytes = huge, .transmission_flags = flags_writable, .style = ReplyStyle::structured}},
    {"ReadOfNothingIsFine", Command::read, 0, 5, 0, ok, writable()},
    {"WriteInside", Command::write, 0, 0, 4096, ok, writable()},
    {"WriteOutOfRangeIsNoSpace", Command::write, 0, size_bytes - 1, 2, nospc, writable()},
    {"ZeroesOutOfRangeIsNoSpace", Command::write_zeroes, 0, size_bytes - 1, 2, nospc, writable()},
    {"ZeroesThatWrapIsNoSpace", Command::write_zeroes, 0, ~std::uint64_t{0} - 1, 4, nospc, writable()},
    {"TrimOutOfRangeIsInvalid", Command::trim, 0, size_bytes - 1, 2, inval, writable()},
    {"StatusOutOfRangeIsInvalid", Command::block_status, 0, size_bytes - 1, 2, inval, writable()},
    {"StatusOfNothingIsInvalid", Command::block_status, 0, 0, 0, inval, writable()},
    {"CacheOutOfRangeIsInvalid", Command::cache, 0, size_bytes - 1, 2, inval, writable()},
    {"WriteToReadOnlyIsNotPermitted", Command::write, 0, 0, 1, perm, reading()},
    {"TrimOfReadOnlyIsNotPermitted", Command::trim, 0, 0, 1, perm, reading()},
    {"ZeroesToReadOnlyIsNotPermitted", Command::write_zeroes, 0, 0, 1, perm, reading()},
    {"ReadOnlyWinsOverRange", Command::write, 0, size_bytes, 1, perm, reading()},
    {"FlushOfReadOnlyIsFine", Command::flush, 0, 0, 0, ok, reading()},
    {"CacheOfReadOnlyIsFine", Command::cache, 0, 0, 4096, ok, reading()},
    {"FlushWithALength", Command::flush, 0, 0, 1, inval, writable()},
    {"FuaOnRead", Command::read, command_fua, 0, 1, ok, writable()},
    {"FuaOnFlush", Command::flush, command_fua, 0, 0, ok, writable()},
    {"FuaOnTrim", Command::trim, command_fua, 0, 1, ok, writable()},
    {"FuaOnZeroes", Command::write_zeroes, command_fua, 0, 1, ok, writable()},
    {"FuaOnCache", Command::cache, command_fua, 0, 1, ok, writable()},
    {"FuaOnStatus", Command::block_status, command_fua, 0, 1, ok, writable()},
    {"NoHoleOnZeroes", Command::write_zeroes, command_no_hole, 0, 1, ok, writable()},
    {"NoHoleWithFastZero", Command::write_zeroes, command_no_hole | command_fast_zero, 0, 1, ok, writable()},
    {"NoHoleOnWrite", Command::write, command_no_hole, 0, 1, inval, writable()},
    {"FastZeroWhereItWasNotOffered", Command::write_zeroes, command_fast_zero, 0, 1, inval,
     without_fast_zero()},
    {"TrimWhereItWasNotOffered", Command::trim, 0, 0, 1, inval, without_fast_zero()},
    {"DfOnRead", Command::read, command_df, 0, 1, ok, writable()},
    {"DfWithoutStructuredReplies", Command::read, command_df, 0, 1, inval, writable(ReplyStyle::simple)},
    {"DfOnWrite", Command::write, command_df, 0, 1, inval, writable()},
    {"ReqOneOnStatus", Command::block_status, command_req_one, 0, 1, ok, writable()},
    {"ReqOneOnRead", Command::read, command_req_one, 0, 1, inval, writable()},
    {"UnknownFlag", Command::read, 1 << 9, 0, 1, inval, writable()},
    {"UnknownCommand", static_cast<Command>(8), 0, 0, 1, inval, writable()},
    {"UnknownCommandFarOut", static_cast<Command>(0xffff), 0, 0, 1, inval, writable()},
    {"StatusWithoutContexts", Command::block_status, 0, 0, 1, inval, without_contexts()},
    {"StatusWithoutStructuredReplies", Command::block_status, 0, 0, 1, inval, writable(ReplyStyle::simple)},
    {"UnalignedOffset", Command::read, 0, 256, 512, inval, in_blocks(512)},
    {"UnalignedLength", Command::read, 0, 512, 100, inval, in_blocks(512)},
    {"UnalignedLengthAtTheEnd", Command::read, 0, 999936, size_bytes - 999936, ok, in_blocks(512)},
    {"TrimOfEverythingIsNoPayload",
     Command::trim,
     0,
     0,
     1u << 30,
     ok,
     {.size_bytes = huge, .transmission_flags = flags_writable}},
    {"PayloadFlagWithoutExtendedHeaders", Command::write, command_payload_len, 0, 1, inval, writable()},
    {"ExtendedWriteWithPayloadFlag", Command::write, command_payload_len, 0, 1, ok,
     writable(ReplyStyle::extended)},
    {"ExtendedWriteWithoutPayloadFlag", Command::write, 0, 0, 1, inval, writable(ReplyStyle::extended)},
    {"ExtendedReadWithPayloadFlag", Command::read, command_payload_len, 0, 1, inval,
     writable(ReplyStyle::extended)},
    {"ExtendedZeroesOf64Bits",
     Command::write_zeroes,
     0,
     0,
     std::uint64_t{1} << 40,
     ok,
     {.size_bytes = huge, .transmission_flags = flags_writable, .style = ReplyStyle::extended}},
};
INSTANTIATE_TEST_SUITE_P(All, RequestRules, testing::ValuesIn(rows),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RequestFraming, ARefusedWriteStillNamesItsPayload) {
  const Verdict verdict = judge({.type = 1, .offset = 0, .length = 4096}, reading());
  EXPECT_EQ(verdict.error, perm);
  EXPECT_EQ(verdict.payload_bytes, 4096u);
}
TEST(RequestFraming, AnOversizeWriteIsThrownAwayAndRefused) {
  const Verdict verdict = judge({.type = 1, .length = payload_bytes_default + 1}, writable());
  EXPECT_EQ(verdict.error, inval);
  EXPECT_FALSE(verdict.disconnect);
  EXPECT_EQ(verdict.payload_bytes, payload_bytes_default + 1u);
}
TEST(RequestFraming, AWriteOfMoreThanTwiceTheLimitDisconnects) {
  EXPECT_TRUE(
      judge({.type = 1, .length = 2 * std::uint64_t{payload_bytes_default} + 1}, writable()).disconnect);
}
TEST(RequestFraming, AnUnknownExtendedCommandWithPayloadIsConsumed) {
  const Verdict verdict =
      judge({.flags = command_payload_len, .type = 77, .length = 100}, writable(ReplyStyle::extended));
  EXPECT_EQ(verdict.error, inval);
  EXPECT_EQ(verdict.payload_bytes, 100u);
}

std::vector<std::byte> filter_payload(std::uint64_t length, std::vector<std::uint32_t> ids) {
  std::vector<std::byte> payload(8 + 4 * ids.size());
  store_big(payload.data(), length);
  for (std::size_t i = 0; i < ids.size(); ++i) store_big(payload.data() + 8 + 4 * i, ids[i]);
  return payload;
}
TEST(StatusFilter, TakesSelectedIdsOnceEach) {
  const std::vector<std::uint32_t> selected{1, 2, 3};
  StatusFilter filter;
  EXPECT_TRUE(decode_status_filter(filter_payload(1ull << 40, {3, 1}), selected, filter));
  EXPECT_EQ(filter.length, 1ull << 40);
  EXPECT_EQ(filter.ids, (std::vector<std::uint32_t>{3, 1}));
  EXPECT_FALSE(decode_status_filter(filter_payload(1, {1, 1}), selected, filter)) << "twice";
  EXPECT_FALSE(decode_status_filter(filter_payload(1, {4}), selected, filter)) << "never selected";
  EXPECT_FALSE(decode_status_filter(filter_payload(1, {}), selected, filter)) << "no id at all";
  auto torn = filter_payload(1, {1});
  torn.resize(11);
  EXPECT_FALSE(decode_status_filter(torn, selected, filter)) << "not whole";
}

TEST(Codec, ARunOver32BitsIsCutAndEndsACompactChunk) {
  const std::vector<StatusRun> runs{{5ull << 30, 3}, {4096, 0}};
  const auto compact = status_reply(ReplyStyle::structured, {.type = 7}, 1, runs, true);
  ASSERT_EQ(compact.size(), structured_header_bytes + 4 + 8);
  const auto length = load_big<std::uint32_t>(compact.data() + structured_header_bytes + 4);
  EXPECT_EQ(length, 0xffff0000u);
  const auto extended = status_reply(ReplyStyle::extended, {.type = 7}, 1, runs, true);
  ASSERT_EQ(extended.size(), extended_header_bytes + 8 + 32);
  EXPECT_EQ(load_big<std::uint32_t>(extended.data() + extended_header_bytes + 4), 2u);
  EXPECT_EQ(load_big<std::uint64_t>(extended.data() + extended_header_bytes + 8), 5ull << 30);
}
TEST(Codec, ErrorTextIsCut) {
  const auto reply = error_reply(ReplyStyle::structured, {}, NbdErrno::io, std::string(100000, 'x'));
  EXPECT_LE(reply.size(), structured_header_bytes + 6 + 4096);
  EXPECT_EQ(load_big<std::uint16_t>(reply.data() + structured_header_bytes + 4) + structured_header_bytes + 6,
            reply.size());
}

}  // namespace
}  // namespace diskferry::nbd_server
