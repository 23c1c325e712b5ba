// The NBD client under TLS: whom it believes, and that it never speaks in clear text where TLS was asked for.
#include "tests/interop/nbd_client_support.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <libnbd.h>

namespace diskferry {
namespace {
using namespace test;

void make(const std::vector<std::string>& arguments) {
  const auto made = run_program(arguments);
  ASSERT_EQ(made.exit_code, 0) << made.err;
}

/// An authority, and a server certificate for `names` ("DNS:localhost,IP:127.0.0.1") signed by it.
void make_certificates(const std::string& folder, const std::string& names, bool is_expired = false) {
  std::filesystem::create_directories(folder);
  make({"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder + "/ca-key.pem", "-out",
        folder + "/ca-cert.pem", "-days", "2", "-subj", "/CN=test authority"});
  make({"openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", folder + "/server-key.pem", "-out",
        folder + "/server.csr", "-subj", "/CN=server"});
  std::ofstream(folder + "/extensions") << "subjectAltName=" << names << "\n";
  make({"openssl", "x509", "-req", "-in", folder + "/server.csr", "-CA", folder + "/ca-cert.pem", "-CAkey",
        folder + "/ca-key.pem", "-CAcreateserial", "-days", is_expired ? "-1" : "2", "-extfile",
        folder + "/extensions", "-out", folder + "/server-cert.pem"});
}

class NbdClientTls : public ::testing::Test {
 protected:
  /// nbdkit with these certificates or keys, on TCP.
  void serve(std::vector<std::string> tls, const std::string& address = "127.0.0.1") {
    for (int attempt = 0; attempt < 10; ++attempt) {
      const std::uint16_t port = free_tcp_port();
      port_ = std::to_string(port);
      std::vector<std::string> all{"nbdkit", "-f", "-i", address, "-p", port_};
      all.insert(all.end(), tls.begin(), tls.end());
      all.insert(all.end(), {"memory", "4M"});
      server_ = std::make_unique<ChildProcess>(all, folder_ / "log");
      if (wait_until([&] { return is_listening(port) || !server_->is_running(); }) && server_->is_running())
        return;
    }
    FAIL() << "the server did not start";
  }
  std::string uri(const std::string& host, const std::string& keys) {
    return "nbds://" + host + ":" + port_ + "/" + keys;
  }
  Result<void> use(const std::string& name) {
    DISKFERRY_TRY(auto device, open_nbd(name, {.writable = true}));
    const auto data = pattern(0, 1 * mib);
    auto written = run(device->write(0, data, {}));
    std::vector<std::byte> back(data.size());
    auto read = run(device->read(0, back));
    must(run(device->close()));
    EXPECT_EQ(first_difference(back, 0), SIZE_MAX);
    DISKFERRY_CHECK(std::move(written));
    return read;
  }
  void expect_refused(const std::string& name, ErrorKind kind) {
    const auto used = open_nbd(name);
    ASSERT_FALSE(used) << name;
    EXPECT_EQ(used.error().kind(), kind) << used.error().message();
  }

  TemporaryFolder folder_;
  std::string port_;
  std::unique_ptr<ChildProcess> server_;
};

TEST_F(NbdClientTls, BelievesWhomTheAuthoritySigned) {
  make_certificates(folder_ / "good", "DNS:localhost");
  make_certificates(folder_ / "other", "DNS:localhost");
  serve({"--tls=require", "--tls-certificates=" + (folder_ / "good")});
  must(use(uri("localhost", "?tls-certificates=" + (folder_ / "good"))));
  expect_refused(uri("localhost", "?tls-certificates=" + (folder_ / "other")), ErrorKind::permission);
  // The certificate names localhost, not the address.
  expect_refused(uri("127.0.0.1", "?tls-certificates=" + (folder_ / "good")), ErrorKind::permission);
  must(use(uri("127.0.0.1", "?tls-verify-peer=false&tls-certificates=" + (folder_ / "good"))));
  // Without an authority libnbd would believe anybody.
  expect_refused(uri("localhost", ""), ErrorKind::invalid_argument);
  expect_refused(uri("localhost", "?tls-certificates=" + (folder_ / "nowhere")), ErrorKind::not_found);
  // And a client in clear text is told what to do.
  const auto clear = open_nbd("nbd://localhost:" + port_ + "/");
  ASSERT_FALSE(clear);
  EXPECT_EQ(clear.error().kind(), ErrorKind::permission);
  EXPECT_NE(clear.error().message().find("nbds://"), std::string::npos) << clear.error().message();
}

TEST_F(NbdClientTls, SaysWhatMayHelpWhereTheServerHangsUp) {
  make_certificates(folder_ / "good", "DNS:localhost");
  const std::string certificates = "?tls-certificates=" + (folder_ / "client");
  std::filesystem::create_directories(folder_ / "client");
  std::filesystem::copy(folder_ / "good/ca-cert.pem", folder_ / "client");
  serve({"--tls=require", "--tls-verify-peer", "--tls-certificates=" + (folder_ / "good")});
  const auto unknown = open_nbd(uri("localhost", certificates));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().kind(), ErrorKind::permission);
  EXPECT_NE(unknown.error().message().find("client-cert.pem"), std::string::npos)
      << unknown.error().message();
  // As a client the server's certificate is as good as any.
  std::filesystem::copy(folder_ / "good/server-cert.pem", folder_ / "client/client-cert.pem");
  std::filesystem::copy(folder_ / "good/server-key.pem", folder_ / "client/client-key.pem");
  must(use(uri("localhost", certificates)));
}

TEST_F(NbdClientTls, SaysWhatMayHelpWhereTheAddressIsRefusedAsAName) {
  make({"psktool", "-u", "alice", "-p", folder_ / "keys.psk"});
  serve({"--tls=require", "--tls-psk=" + (folder_ / "keys.psk")}, "::1");
  const auto used = open_nbd("nbds://alice@[::1]:" + port_ + "/?tls-psk-file=" + (folder_ / "keys.psk"));
  if (used) {  // libraries that do not send the address
    must(run((*used)->close()));
    return;
  }
  EXPECT_NE(used.error().message().find("use the host's name"), std::string::npos) << used.error().message();
}

TEST_F(NbdClientTls, RefusesAnExpiredCertificate) {
  make_certificates(folder_ / "old", "DNS:localhost", true);
  serve({"--tls=require", "--tls-certificates=" + (folder_ / "old")});
  expect_refused(uri("localhost", "?tls-certificates=" + (folder_ / "old")), ErrorKind::permission);
}

TEST_F(NbdClientTls, NeverFallsBackToClearText) {
  make_certificates(folder_ / "good", "DNS:localhost");
  serve({"--tls=off"});
  expect_refused(uri("localhost", "?tls-certificates=" + (folder_ / "good")), ErrorKind::permission);
}

TEST_F(NbdClientTls, SpeaksWithAPreSharedKey) {
  make({"psktool", "-u", "alice", "-p", folder_ / "keys.psk"});
  make({"psktool", "-u", "alice", "-p", folder_ / "wrong.psk"});
  serve({"--tls=require", "--tls-psk=" + (folder_ / "keys.psk")});
  must(use("nbds://alice@localhost:" + port_ + "/?tls-psk-file=" + (folder_ / "keys.psk")));
  must(use(uri("localhost", "?tls-username=alice&tls-psk-file=" + (folder_ / "keys.psk"))));
  expect_refused(uri("localhost", "?tls-username=alice&tls-psk-file=" + (folder_ / "wrong.psk")),
                 ErrorKind::permission);
  expect_refused(uri("localhost", "?tls-username=bob&tls-psk-file=" + (folder_ / "keys.psk")),
                 ErrorKind::permission);
}

TEST_F(NbdClientTls, AUnixSocketTakesKeysButNoUnverifiedCertificate) {
  make({"psktool", "-u", "alice", "-p", folder_ / "keys.psk"});
  make_certificates(folder_ / "good", "DNS:localhost");
  auto server = nbdkit({"--tls=require", "--tls-psk=" + (folder_ / "keys.psk"), "memory", "4M"});
  const std::string name = "nbds+unix:///?socket=" + server.socket();
  must(use(name + "&tls-username=alice&tls-psk-file=" + (folder_ / "keys.psk")));
#ifndef LIBNBD_HAVE_NBD_SET_TLS_HOSTNAME
  expect_refused(name + "&tls-certificates=" + (folder_ / "good"), ErrorKind::unsupported);
#endif
}

}  // namespace
}  // namespace diskferry
