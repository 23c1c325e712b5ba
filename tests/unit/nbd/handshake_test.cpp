// The negotiation, fed by hand and without sockets.
#include "gateway/nbd/handshake.hpp"

#include "tests/unit/nbd/test_server.hpp"
#include "tests/unit/nbd/wire_client.hpp"

namespace diskferry::test {
namespace {
using Step = Handshake::Step;

class HandshakeTest : public testing::Test {
 protected:
  HandshakeTest() {
    add({.name = "disk", .description = "a disk", .writable = true});
    add({.name = "secret", .requires_tls = true});
  }
  ExportPtr add(ExportOptions options) {
    auto made =
        must(Export::make(std::move(options),
                          std::shared_ptr<BlockDevice>(checked(make_memory_device({.size_bytes = 12345})))));
    must(table.add(made));
    return made;
  }
  void begin(TlsMode mode = TlsMode::off, std::uint32_t flags = 3) {
    handshake.emplace(table, limits, mode);
    Bytes ignored;
    handshake->greet(ignored);
    Bytes bytes;
    put(bytes, flags);
    EXPECT_EQ(feed(bytes), Step::need_more);
  }
  Step feed(const Bytes& bytes) {
    output.clear();
    std::size_t used = 0;
    const Step step = handshake->consume(bytes, used, output);
    unused = bytes.size() - used;
    return step;
  }
  Step ask(Option option, const Bytes& data = {}) { return feed(option_bytes(option, data)); }
  /// The types of all answers in the output.
  std::vector<OptionReply> answers() const {
    std::vector<OptionReply> types;
    for (std::size_t at = 0; at + option_reply_header_bytes <= output.size();) {
      types.push_back(static_cast<OptionReply>(load_big<std::uint32_t>(output.data() + at + 12)));
      at += option_reply_header_bytes + load_big<std::uint32_t>(output.data() + at + 16);
    }
    return types;
  }
  OptionReply last() const { return answers().back(); }

  ExportTable table;
  Limits limits;
  std::optional<Handshake> handshake;
  Bytes output;
  std::size_t unused = 0;
};

TEST_F(HandshakeTest, GreetsAsFixedNewstyleWithNoZeroes) {
  Handshake fresh(table, limits, TlsMode::off);
  Bytes hello;
  fresh.greet(hello);
  ASSERT_EQ(hello.size(), 18u);
  EXPECT_EQ(load_big<std::uint64_t>(hello.data()), greeting_magic);
  EXPECT_EQ(load_big<std::uint64_t>(hello.data() + 8), option_magic);
  EXPECT_EQ(load_big<std::uint16_t>(hello.data() + 16), 3);
}
TEST_F(HandshakeTest, UnknownClientFlagsEndIt) {
  handshake.emplace(table, limits, TlsMode::off);
  Bytes bytes;
  put(bytes, std::uint32_t{4});
  EXPECT_EQ(feed(bytes), Step::closed);
}
TEST_F(HandshakeTest, EveryPrefixOfAConversationIsWaitedFor) {
  Bytes all;
  put(all, std::uint32_t{3});
  for (const auto& part : {option_bytes(Option::structured_reply),
                           option_bytes(Option::set_meta_context, context_data("disk", {"base:allocation"})),
                           option_bytes(Option::go, go_data("disk"))})
    all.insert(all.end(), part.begin(), part.end());
  for (std::size_t cut = 0; cut < all.size(); ++cut) {
    handshake.emplace(table, limits, TlsMode::off);
    Bytes first(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(cut));
    ASSERT_EQ(feed(first), Step::need_more) << cut;
    Bytes rest(all.end() - static_cast<std::ptrdiff_t>(all.size() - cut + unused), all.end());
    ASSERT_EQ(feed(rest), Step::transmission) << cut;
  }
}
TEST_F(HandshakeTest, ExportNameAnswersWithSizeFlagsAndZeroes) {
  begin(TlsMode::off, handshake_fixed_newstyle);
  Bytes name;
  put_text(name, "disk");
  EXPECT_EQ(ask(Option::export_name, name), Step::transmission);
  ASSERT_EQ(output.size(), 8u + 2 + 124);
  EXPECT_EQ(load_big<std::uint64_t>(output.data()), 12345u) << "exact, not a multiple of 512";
  begin();
  EXPECT_EQ(ask(Option::export_name, name), Step::transmission);
  EXPECT_EQ(output.size(), 10u);
}
TEST_F(HandshakeTest, ExportNameOfAnUnknownExportCloses) {
  begin();
  Bytes name;
  put_text(name, "nothing");
  EXPECT_EQ(ask(Option::export_name, name), Step::closed);
  EXPECT_TRUE(output.empty());
}
TEST_F(HandshakeTest, TheEmptyNameIsTheFirstExport) {
  begin();
  EXPECT_EQ(ask(Option::go, go_data("")), Step::transmission);
  EXPECT_EQ(handshake->take_terms().entry.get()->name(), "disk");
}
TEST_F(HandshakeTest, AnExportNameOf4096BytesIsLegalAndALongerOneIsInvalid) {
  add({.name = std::string(4096, 'n')});
  begin();
  EXPECT_EQ(ask(Option::info, go_data(std::string(4096, 'n'))), Step::need_more);
  EXPECT_EQ(last(), OptionReply::ack);
  ask(Option::info, go_data(std::string(4097, 'n')));
  EXPECT_EQ(last(), OptionReply::error_invalid);
  EXPECT_FALSE(Export::make({.name = std::string(4097, 'n')},
                            std::shared_ptr<BlockDevice>(checked(make_memory_device({})))));
}
TEST_F(HandshakeTest, AbortIsAcknowledged) {
  begin();
  EXPECT_EQ(ask(Option::abort), Step::closed);
  EXPECT_EQ(last(), OptionReply::ack);
  EXPECT_TRUE(handshake->problem().empty());
}
TEST_F(HandshakeTest, ListNamesAndDescribesWhatTheClientMayUse) {
  begin();
  ask(Option::list);
  EXPECT_EQ(answers(), (std::vector{OptionReply::server, OptionReply::ack}))
      << "the TLS-only one is left out";
  const std::string all(reinterpret_cast<const char*>(output.data()), output.size());
  EXPECT_NE(all.find("diska disk"), std::string::npos);
  Bytes data;
  put(data, std::uint32_t{0});
  ask(Option::list, data);
  EXPECT_EQ(last(), OptionReply::error_invalid);
}
TEST_F(HandshakeTest, InfoTellsEverythingAndStays) {
  begin();
  EXPECT_EQ(ask(Option::info, go_data("disk", {Info::name, Info::description, Info::block_size})),
            Step::need_more);
  EXPECT_EQ(answers(), (std::vector{OptionReply::info, OptionReply::info, OptionReply::info,
                                    OptionReply::info, OptionReply::ack}));
}
TEST_F(HandshakeTest, MalformedInfoIsInvalid) {
  begin();
  for (Bytes data : {Bytes{}, go_data("disk"), go_data("disk", {Info::name})}) {
    data.push_back(std::byte{0});
    ask(Option::go, data);
    EXPECT_EQ(last(), OptionReply::error_invalid);
    data.resize(data.size() > 2 ? data.size() - 2 : 0);
    ask(Option::go, data);
    EXPECT_EQ(last(), OptionReply::error_invalid);
  }
  Bytes lying;
  put(lying, std::uint32_t{0xffffffff});
  put(lying, std::uint16_t{0});
  ask(Option::go, lying);
  EXPECT_EQ(last(), OptionReply::error_invalid);
}
TEST_F(HandshakeTest, UnknownOptionsAreUnsupported) {
  begin();
  EXPECT_EQ(ask(static_cast<Option>(4)), Step::need_more);
  EXPECT_EQ(last(), OptionReply::error_unsupported);
  EXPECT_EQ(ask(static_cast<Option>(0xdeadbeef), Bytes(100)), Step::need_more);
  EXPECT_EQ(last(), OptionReply::error_unsupported);
}
TEST_F(HandshakeTest, AnOptionWithTooMuchDataIsSkippedAndAFarTooLargeOneCloses) {
  begin();
  EXPECT_EQ(ask(Option::go, Bytes(limits.option_bytes_max + 1)), Step::need_more);
  EXPECT_EQ(last(), OptionReply::error_too_big);
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission) << "the conversation goes on";
  begin();
  EXPECT_EQ(ask(Option::go, Bytes(limits.option_skip_bytes_max + 1)), Step::closed);
}
TEST_F(HandshakeTest, TooManyOptionsClose) {
  begin();
  Step step = Step::need_more;
  std::size_t asked = 0;
  while (step == Step::need_more && asked < 10000) {
    step = ask(Option::list);
    ++asked;
  }
  EXPECT_EQ(step, Step::closed);
  EXPECT_EQ(asked, limits.options_max + 1);
}
TEST_F(HandshakeTest, StructuredRepliesAndExtendedHeaders) {
  begin();
  ask(Option::structured_reply);
  EXPECT_EQ(last(), OptionReply::ack);
  ask(Option::extended_headers, Bytes(1));
  EXPECT_EQ(last(), OptionReply::error_invalid);
  ask(Option::extended_headers);
  EXPECT_EQ(last(), OptionReply::ack);
  ask(Option::structured_reply);
  EXPECT_EQ(last(), OptionReply::error_extended_headers_required);
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  const Terms terms = handshake->take_terms();
  EXPECT_EQ(terms.requests.style, ReplyStyle::extended);
  EXPECT_TRUE(terms.requests.transmission_flags & flag_send_df);
  EXPECT_FALSE(terms.requests.transmission_flags & flag_block_status_payload) << "no context was selected";
}
TEST_F(HandshakeTest, AskingTwiceForAStyleIsInvalidAndChangesNothing) {
  begin();
  ask(Option::structured_reply);
  ask(Option::structured_reply);
  EXPECT_EQ(last(), OptionReply::error_invalid);
  ask(Option::extended_headers);
  ask(Option::extended_headers);
  EXPECT_EQ(last(), OptionReply::error_invalid);
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  EXPECT_EQ(handshake->take_terms().requests.style, ReplyStyle::extended);
}
TEST_F(HandshakeTest, InfoTellsThatContextsCanBeFiltered) {
  const auto flags = [&] {  // of NBD_INFO_EXPORT, which is sent last
    return load_big<std::uint16_t>(output.data() + output.size() - option_reply_header_bytes - 2);
  };
  begin();
  ask(Option::structured_reply);
  ask(Option::info, go_data("disk"));
  EXPECT_FALSE(flags() & flag_block_status_payload) << "that needs extended headers";
  ask(Option::extended_headers);
  ask(Option::info, go_data("disk"));
  EXPECT_TRUE(flags() & flag_block_status_payload);
  ask(Option::go, go_data("disk"));
  EXPECT_FALSE(flags() & flag_block_status_payload) << "no context was selected";
}
TEST_F(HandshakeTest, ExportNameAfterExtendedHeadersCloses) {
  begin();
  ask(Option::extended_headers);
  Bytes name;
  put_text(name, "disk");
  EXPECT_EQ(ask(Option::export_name, name), Step::closed);
}
TEST_F(HandshakeTest, DfIsOnlyOfferedWithStructuredReplies) {
  begin();
  ask(Option::go, go_data("disk"));
  EXPECT_FALSE(handshake->take_terms().requests.transmission_flags & flag_send_df);
}
TEST_F(HandshakeTest, ContextsNeedStructuredReplies) {
  begin();
  ask(Option::set_meta_context, context_data("disk", {"base:allocation"}));
  EXPECT_EQ(last(), OptionReply::error_invalid);
  ask(Option::list_meta_context, context_data("disk", {}));
  EXPECT_EQ(last(), OptionReply::error_invalid);
}
TEST_F(HandshakeTest, ListingContextsTakesNamespacesAndSelectingTakesNames) {
  begin();
  ask(Option::structured_reply);
  ask(Option::list_meta_context, context_data("disk", {}));
  EXPECT_EQ(answers().size(), 3u);
  ask(Option::list_meta_context, context_data("disk", {"base:"}));
  EXPECT_EQ(answers().size(), 2u);
  ask(Option::list_meta_context, context_data("disk", {"qemu:", "x-other:thing"}));
  EXPECT_EQ(answers().size(), 2u);
  ask(Option::set_meta_context, context_data("disk", {"base:"}));
  EXPECT_EQ(answers().size(), 1u);
  ask(Option::set_meta_context,
      context_data("disk", {"base:allocation", "qemu:allocation-depth", "base:allocation"}));
  EXPECT_EQ(answers().size(), 3u) << "each once";
}
TEST_F(HandshakeTest, ANewSelectionReplacesTheOldOneEvenWhenItFails) {
  begin();
  ask(Option::structured_reply);
  ask(Option::set_meta_context, context_data("disk", {"base:allocation"}));
  EXPECT_EQ(answers().size(), 2u);
  ask(Option::set_meta_context, context_data("nothing", {"base:allocation"}));
  EXPECT_EQ(last(), OptionReply::error_unknown_export);
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  EXPECT_FALSE(handshake->take_terms().requests.has_contexts);
}
TEST_F(HandshakeTest, ContextsCountOnlyForTheExportTheyWereSelectedFor) {
  add({.name = "other"});
  begin();
  ask(Option::structured_reply);
  ask(Option::set_meta_context, context_data("other", {"base:allocation"}));
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  EXPECT_FALSE(handshake->take_terms().requests.has_contexts);
  begin();
  ask(Option::structured_reply);
  ask(Option::set_meta_context, context_data("", {"base:allocation"}));
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  EXPECT_TRUE(handshake->take_terms().requests.has_contexts) << "two names of the same export";
}
TEST_F(HandshakeTest, StartTlsForgetsEverythingNegotiated) {
  begin(TlsMode::on);
  ask(Option::extended_headers);
  ask(Option::set_meta_context, context_data("disk", {"base:allocation"}));
  EXPECT_EQ(ask(Option::starttls), Step::start_tls);
  handshake->tls_started({});
  EXPECT_EQ(ask(Option::go, go_data("disk")), Step::transmission);
  const Terms terms = handshake->take_terms();
  EXPECT_EQ(terms.requests.style, ReplyStyle::simple);
  EXPECT_FALSE(terms.requests.has_contexts);
}
TEST_F(HandshakeTest, StartTlsStopsInFrontOfWhatFollows) {
  begin(TlsMode::on);
  Bytes bytes = option_bytes(Option::starttls);
  const Bytes injected = option_bytes(Option::list);
  bytes.insert(bytes.end(), injected.begin(), injected.end());
  EXPECT_EQ(feed(bytes), Step::start_tls);
  EXPECT_EQ(unused, injected.size()) << "left for the session to throw away";
}
TEST_F(HandshakeTest, StartTlsWithoutTlsIsPolicyAndTwiceIsInvalid) {
  begin();
  ask(Option::starttls);
  EXPECT_EQ(last(), OptionReply::error_policy);
  begin(TlsMode::on);
  EXPECT_EQ(ask(Option::starttls), Step::start_tls);
  handshake->tls_started({});
  ask(Option::starttls);
  EXPECT_EQ(last(), OptionReply::error_invalid);
}
TEST_F(HandshakeTest, RequiredTlsRefusesEverythingElseFirst) {
  begin(TlsMode::require);
  for (const Option option : {Option::list, Option::go, Option::info, Option::structured_reply,
                              Option::set_meta_context, Option::extended_headers, static_cast<Option>(99)}) {
    EXPECT_EQ(ask(option), Step::need_more);
    EXPECT_EQ(last(), OptionReply::error_tls_required);
  }
  EXPECT_EQ(ask(Option::export_name), Step::closed);
  begin(TlsMode::require);
  EXPECT_EQ(ask(Option::abort), Step::closed);
  EXPECT_EQ(last(), OptionReply::ack);
}
TEST_F(HandshakeTest, AnExportMayRequireTlsOnItsOwn) {
  begin(TlsMode::on);
  ask(Option::go, go_data("secret"));
  EXPECT_EQ(last(), OptionReply::error_tls_required);
  EXPECT_EQ(ask(Option::starttls), Step::start_tls);
  handshake->tls_started({});
  EXPECT_EQ(ask(Option::go, go_data("secret")), Step::transmission);
}
TEST_F(HandshakeTest, AnExportMayBeForSomeClientsOnly) {
  add({.name = "private", .allow = {"alice"}});
  begin(TlsMode::on);
  ask(Option::starttls);
  handshake->tls_started({.is_encrypted = true, .names = {"mallory"}});
  ask(Option::go, go_data("private"));
  EXPECT_EQ(last(), OptionReply::error_policy);
  ask(Option::list);
  EXPECT_EQ(answers().size(), 3u) << "not listed either";
  begin(TlsMode::on);
  ask(Option::starttls);
  handshake->tls_started({.is_encrypted = true, .names = {"alice"}});
  EXPECT_EQ(ask(Option::go, go_data("private")), Step::transmission);
}
TEST_F(HandshakeTest, AFullExportIsRefusedAndFreeAgainWhenAClientLeaves) {
  add({.name = "one", .clients_max = 1});
  begin();
  EXPECT_EQ(ask(Option::go, go_data("one")), Step::transmission);
  {
    const Terms held = handshake->take_terms();
    begin();
    EXPECT_EQ(ask(Option::go, go_data("one")), Step::need_more);
    EXPECT_EQ(last(), OptionReply::error_policy);
  }
  EXPECT_EQ(ask(Option::go, go_data("one")), Step::transmission);
}

struct FlagRow {
  const char* name;
  ExportOptions options;
  MemoryOptions memory;
  std::uint16_t set;
  std::uint16_t clear;
};
TEST(ExportFlags, FollowTheDevice) {
  const FlagRow rows[] = {
      {"read-only",
       {.name = "x"},
       {},
       flag_read_only | flag_can_multi_conn | flag_send_flush,
       flag_send_trim | flag_send_write_zeroes | flag_send_fast_zero},
      {"writable",
       {.name = "x", .writable = true},
       {},
       flag_send_trim | flag_send_write_zeroes | flag_send_fast_zero | flag_can_multi_conn | flag_send_fua |
           flag_send_cache,
       flag_read_only | flag_rotational},
      {"cannot zero fast",
       {.name = "x", .writable = true},
       {.zero = ZeroSupport::slow},
       flag_send_write_zeroes,
       flag_send_fast_zero},
      {"cannot discard",
       {.name = "x", .writable = true},
       {.can_discard = false},
       flag_send_write_zeroes,
       flag_send_trim},
      {"flushes cover one connection only",
       {.name = "x", .writable = true},
       {.can_multi_connection = false},
       flag_send_flush,
       flag_can_multi_conn},
      {"the same, for readers", {.name = "x"}, {.can_multi_connection = false}, flag_can_multi_conn, 0},
      {"one client", {.name = "x", .clients_max = 1}, {}, flag_read_only, flag_can_multi_conn},
  };
  for (const FlagRow& row : rows) {
    const auto made = must(
        Export::make(row.options, std::shared_ptr<BlockDevice>(checked(make_memory_device(row.memory)))));
    EXPECT_EQ(made->transmission_flags() & row.set, row.set) << row.name;
    EXPECT_EQ(made->transmission_flags() & row.clear, 0) << row.name;
  }
}

TEST(ListenAddress, IsParsed) {
  const auto tcp = must(ListenAddress::parse("nbd://[::1]:0"));
  EXPECT_EQ(tcp.host, "::1");
  EXPECT_EQ(tcp.port, 0);
  EXPECT_EQ(must(ListenAddress::parse("nbd://host")).port, 10809);
  EXPECT_EQ(must(ListenAddress::parse("nbds://host:1/")).tls, ListenAddress::Tls::required);
  EXPECT_EQ(must(ListenAddress::parse("tls://host:1/")).tls, ListenAddress::Tls::direct);
  EXPECT_EQ(must(ListenAddress::parse("unix:/run/a b")).path, "/run/a b");
  EXPECT_EQ(must(ListenAddress::parse("unix:/run/a b")).to_uri(), "nbd+unix:///?socket=/run/a%20b");
  EXPECT_EQ(must(ListenAddress::parse("nbds+unix:///?socket=/run/x")).tls, ListenAddress::Tls::required);
  EXPECT_EQ(must(ListenAddress::parse("nbds://[::1]:1")).to_uri("a b"), "nbds://[::1]:1/a%20b");
  for (const char* bad : {"", "host:1", "http://host", "nbd://host:x", "nbd://host:65536", "nbd://[::1",
                          "nbd://::1", "nbd://host/name", "unix:", "nbd+unix:///", "nbd://user@host"})
    EXPECT_FALSE(ListenAddress::parse(bad)) << bad;
  EXPECT_FALSE(ListenAddress::parse("unix:/" + std::string(200, 'p')));
}

}  // namespace
}  // namespace diskferry::test
