// The configuration: defaults, everything said, and each way to get it wrong.
#include "gateway/config/config.hpp"

#include "tests/support/test_runtime.hpp"

#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace diskferry {
namespace {
using test::must;

TEST(Config, AnEmptyFileGivesTheDefaults) {
  const Config config = must(parse_config("", "x.toml"));
  EXPECT_EQ(config.control.socket, "/run/diskferry/control.sock");
  EXPECT_EQ(config.control.listen.text, "");
  EXPECT_EQ(config.web.listen.text, "");
  ASSERT_EQ(config.nbd.listen.size(), 1u);
  EXPECT_EQ(config.nbd.listen.front().text, "unix:/run/diskferry/nbd.sock");
  EXPECT_EQ(config.nbd.tls, NbdConfig::Tls::off);
  EXPECT_EQ(config.state.folder, "/var/lib/diskferry");
  EXPECT_EQ(config.move.max_pause, std::chrono::milliseconds(1000));
  EXPECT_EQ(config.hypervisor.uri, "qemu:///system");
  EXPECT_TRUE(config.exports.empty());
}

TEST(Config, ReadsEverySetting) {
  const Config config = must(parse_config(R"(
name = "host-a"
[control]
socket = "/run/x.sock"
group = "libvirt"
listen = "[::]:10810"
certificates = "/pki"
allow = ["alice"]
peers = ["host-b", "host-c"]
[web]
listen = "127.0.0.1:9309"
plain = true
hosts = ["gw.example"]
[nbd]
listen = ["nbds://[::]:10809", "unix:/run/nbd.sock"]
tls = "require"
certificates = "/pki2"
verify-peer = false
connections = 7
[state]
folder = "/srv/state"
[log]
level = "debug"
format = "json"
[move]
window = "32M"
connections = 2
max-pause = "300ms"
rate = 1000000
qemu-user = "libvirt-qemu"
qemu-group = "kvm"
run-folder = "/run/moves"
qmp-sockets = "/run/qemu"
[hypervisor]
uri = "qemu+unix:///system?socket=/run/v.sock"
[evacuate]
fence = ["/sbin/fence", "%h"]
fence-timeout = "5s"
hosts = ["qemu+tls://host-c/system"]
[[export]]
name = "a"
image = "/srv/a.qcow2"
format = "qcow2"
description = "the first"
writable = true
require-tls = true
[[export]]
name = "b"
image = "nbd://host/b"
)",
                                          "x.toml"));
  EXPECT_EQ(config.name, "host-a");
  EXPECT_EQ(config.control.group, "libvirt");
  EXPECT_EQ(config.control.listen.text, "[::]:10810");
  EXPECT_EQ(config.control.listen.where, "x.toml:6");
  EXPECT_EQ(config.control.peers, (std::vector<std::string>{"host-b", "host-c"}));
  EXPECT_EQ(config.web.listen.text, "127.0.0.1:9309");
  EXPECT_TRUE(config.web.plain);
  EXPECT_EQ(config.web.hosts, std::vector<std::string>{"gw.example"});
  EXPECT_EQ(config.nbd.listen.at(1).text, "unix:/run/nbd.sock");
  EXPECT_EQ(config.nbd.tls, NbdConfig::Tls::require);
  EXPECT_EQ(config.nbd.certificates, "/pki2");
  EXPECT_FALSE(config.nbd.verify_peer);
  EXPECT_EQ(config.nbd.connections_max, 7u);
  EXPECT_EQ(config.log.format, "json");
  EXPECT_EQ(config.move.window_bytes, 32u << 20);
  EXPECT_EQ(config.move.max_pause, std::chrono::milliseconds(300));
  EXPECT_EQ(config.move.rate_bytes_per_s, 1000000u);
  EXPECT_EQ(config.move.qemu_group, "kvm");
  EXPECT_EQ(config.move.qmp_sockets, "/run/qemu");
  EXPECT_EQ(config.hypervisor.uri, "qemu+unix:///system?socket=/run/v.sock");
  EXPECT_EQ(config.evacuate.fence, (std::vector<std::string>{"/sbin/fence", "%h"}));
  EXPECT_EQ(config.evacuate.fence_timeout, std::chrono::seconds(5));
  EXPECT_EQ(config.evacuate.hosts, std::vector<std::string>{"qemu+tls://host-c/system"});
  ASSERT_EQ(config.exports.size(), 2u);
  EXPECT_TRUE(config.exports.at(0).writable);
  EXPECT_EQ(config.exports.at(0).description, "the first");
  EXPECT_FALSE(config.exports.at(1).writable);
}

struct Wrong {
  const char* name;
  const char* text;
  const char* where;
  const char* says;
};

class WrongConfig : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongConfig, IsRefusedWithItsPlaceOnOneLine) {
  const auto parsed = parse_config(GetParam().text, "x.toml");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().kind(), ErrorKind::invalid_argument);
  const std::string message = parsed.error().message();
  EXPECT_NE(message.find(GetParam().where), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().says), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, WrongConfig,
    ::testing::Values(
        Wrong{"no_toml", "[control]\nsocket = /run\n", "x.toml:2", ""},
        Wrong{"bracket_not_closed", "[control\n", "x.toml:1", ""},
        Wrong{"key_twice", "name = \"a\"\nname = \"b\"\n", "x.toml:", "name"},
        Wrong{"unknown_table", "\n[contrl]\n", "x.toml:2", "no setting contrl"},
        Wrong{"unknown_key", "[control]\nsockets = \"/x\"\n", "x.toml:2", "no setting control.sockets"},
        Wrong{"unknown_key_of_an_export", "[[export]]\nname=\"a\"\nimage=\"/a\"\nwriteable=true\n",
              "x.toml:4", "no setting export.writeable"},
        Wrong{"web_without_an_address", "[web]\nplain = true\n", "x.toml:1", "web.listen only"},
        Wrong{"web_with_tls_and_without", "[web]\nlisten = \"a\"\nplain = true\nallow = [\"a\"]\n",
              "x.toml:3", "one of them"},
        Wrong{"table_is_a_text", "control = \"/run\"\n", "x.toml:1", "[control]"},
        Wrong{"export_is_one_table", "[export]\nname=\"a\"\n", "x.toml:1", "[[export]]"},
        Wrong{"text_is_a_number", "[control]\nsocket = 7\n", "x.toml:2", "control.socket must be a text"},
        Wrong{"list_holds_a_number", "[nbd]\nlisten = [\"unix:/a\", 7]\n", "x.toml:2", "list of texts"},
        Wrong{"flag_is_a_text", "[nbd]\nverify-peer = \"yes\"\n", "x.toml:2", "true or false"},
        Wrong{"relative_socket", "[control]\nsocket = \"run/x\"\n", "x.toml:2", "absolute"},
        Wrong{"empty_socket", "[control]\nsocket = \"\"\n", "x.toml:2", "1 to 107"},
        Wrong{"listens_for_nobody", "[control]\nlisten = \":1\"\n", "x.toml:2", "control.allow"},
        Wrong{"allows_without_listening", "[control]\nallow = [\"a\"]\n", "x.toml:1", "control.listen"},
        Wrong{"tls_word", "[nbd]\ntls = \"yes\"\n", "x.toml:2", "off, on, require"},
        Wrong{"allow_without_tls", "[nbd]\nallow = [\"a\"]\n", "x.toml:1", "nbd.tls"},
        Wrong{"connections_zero", "[nbd]\nconnections = 0\n", "x.toml:2", "1 to 100000"},
        Wrong{"connections_negative", "[nbd]\nconnections = -1\n", "x.toml:2", "1 to 100000"},
        Wrong{"log_level", "[log]\nlevel = \"loud\"\n", "x.toml:2", "error, warn, info"},
        Wrong{"window_text", "[move]\nwindow = \"big\"\n", "x.toml:2", "amount of bytes"},
        Wrong{"window_negative", "[move]\nwindow = -5\n", "x.toml:2", "amount of bytes"},
        Wrong{"window_too_large", "[move]\nwindow = \"2G\"\n", "x.toml:2", "1M to 1G"},
        Wrong{"pause_without_unit", "[move]\nmax-pause = 300\n", "x.toml:2", "a time"},
        Wrong{"pause_unit", "[move]\nmax-pause = \"3h\"\n", "x.toml:2", "a time"},
        Wrong{"pause_too_long", "[move]\nmax-pause = \"99999999999m\"\n", "x.toml:2", "a time"},
        Wrong{"hypervisor_that_is_none", "[hypervisor]\nuri = \"localhost\"\n", "x.toml:2", "libvirt's URI"},
        Wrong{"hypervisor_of_others", "[hypervisor]\nuri = \"xen:///system\"\n", "x.toml:2",
              "qemu:///system"},
        Wrong{"fence_without_a_path", "[evacuate]\nfence = \"fence %h\"\n", "x.toml:2", "absolute path"},
        Wrong{"fence_in_no_time", "[evacuate]\nfence-timeout = \"0s\"\n", "x.toml:2", "1ms to 10m"},
        Wrong{"relative_state", "[state]\nfolder = \"state\"\n", "x.toml:2", "absolute"},
        Wrong{"empty_state", "[state]\nfolder = \"\"\n", "x.toml", "state.folder"},
        Wrong{"export_without_name", "[[export]]\nimage=\"/a\"\n", "x.toml:1", "name"},
        Wrong{"export_without_image", "[[export]]\nname=\"a\"\n", "x.toml:1", "image"},
        Wrong{"export_relative", "[[export]]\nname=\"a\"\nimage=\"a.raw\"\n", "x.toml:3", "absolute"},
        Wrong{"export_bad_uri", "[[export]]\nname=\"a\"\nimage=\"nbd://host:99999/\"\n", "x.toml:3", ""},
        Wrong{"export_twice", "[[export]]\nname=\"a\"\nimage=\"/a\"\n[[export]]\nname=\"a\"\nimage=\"/b\"\n",
              "x.toml:4", "two exports"},
        Wrong{"export_protected_without_tls", "[[export]]\nname=\"a\"\nimage=\"/a\"\nrequire-tls=true\n",
              "x.toml:1", "nbd.tls is off"},
        Wrong{"export_for_names_nobody_proves",
              "[nbd]\ntls=\"on\"\nverify-peer=false\n[[export]]\nname=\"a\"\nimage=\"/a\"\nallow=[\"x\"]\n",
              "x.toml:4", "verify-peer"}),
    [](const auto& row) { return row.param.name; });

TEST(Config, ReadsWhoMayLook) {
  const Config config = must(parse_config("[web]\nlisten = \"[::]\"\nallow = [\"alice\"]\n", "x.toml"));
  EXPECT_EQ(config.web.listen.text, "[::]");
  EXPECT_EQ(config.web.listen.where, "x.toml:2");
  EXPECT_EQ(config.web.allow, std::vector<std::string>{"alice"});
  EXPECT_FALSE(config.web.plain);
}

TEST(Config, AFileThatIsNotThereIsNamed) {
  const auto loaded = load_config("/nonexistent/x.toml");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().kind(), ErrorKind::not_found);
  EXPECT_NE(loaded.error().message().find("/nonexistent/x.toml"), std::string::npos);
}

TEST(Config, AHugeFileIsRefused) {
  const test::TemporaryFolder folder;
  std::ofstream(folder / "x.toml") << std::string((1u << 20) + 1, '#');
  const auto loaded = load_config(folder / "x.toml");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().kind(), ErrorKind::too_large);
}

TEST(Config, BracketsWithoutEndAreRefused) {
  const auto parsed = parse_config("a = " + std::string(100'000, '['), "x.toml");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().kind(), ErrorKind::too_large);
}

TEST(Config, AFolderIsNoFile) {
  const test::TemporaryFolder folder;
  EXPECT_FALSE(load_config(folder.path()));
}

}  // namespace
}  // namespace diskferry
