// Mutual TLS: who gets in, and whom the client believes.
#include "gateway/control/client.hpp"
#include "tests/unit/control/test_server.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace diskferry::test {
namespace {
using namespace control;

void make(const std::vector<std::string>& arguments) {
  const auto made = run_program(arguments);
  ASSERT_EQ(made.exit_code, 0) << made.err;
}

/// An authority in `folder`, with names as QEMU has them.
void make_authority(const std::string& folder) {
  std::filesystem::create_directories(folder);
  make({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", folder + "/ca-key.pem", "-out", folder + "/ca-cert.pem", "-days", "2", "-subj",
        "/CN=test authority"});
}
/// A certificate of `name` for "server" or "client", signed by the authority of `authority`.
void make_certificate(const std::string& authority, const std::string& folder, const std::string& role,
                      const std::string& name) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(authority + "/ca-cert.pem", folder + "/ca-cert.pem",
                             std::filesystem::copy_options::skip_existing);
  make({"openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
        folder + "/" + role + "-key.pem", "-out", folder + "/request", "-subj", "/CN=" + name});
  std::ofstream(folder + "/extensions")
      << "subjectAltName=DNS:" << name << ",IP:127.0.0.1\nextendedKeyUsage=" << role << "Auth\n";
  make({"openssl", "x509", "-req", "-in", folder + "/request", "-CA", authority + "/ca-cert.pem", "-CAkey",
        authority + "/ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", folder + "/extensions",
        "-out", folder + "/" + role + "-cert.pem"});
}

/// Certificates are made once for all tests here.
struct Certificates {
  Certificates() {
    make_authority(ours());
    make_authority(theirs());
    make_certificate(ours(), server(), "server", "localhost");
    make_certificate(ours(), client("alice"), "client", "alice");
    make_certificate(ours(), client("host-b"), "client", "host-b");
    make_certificate(ours(), client("mallory"), "client", "mallory");
    make_certificate(theirs(), client("stranger"), "client", "alice");
    // Believes us, but shows what another authority signed.
    std::filesystem::copy_file(ours() + "/ca-cert.pem", client("stranger") + "/ca-cert.pem",
                               std::filesystem::copy_options::overwrite_existing);
    // The other way round: an honest client of another authority's world.
    make_certificate(ours(), client("elsewhere"), "client", "alice");
    std::filesystem::copy_file(theirs() + "/ca-cert.pem", client("elsewhere") + "/ca-cert.pem",
                               std::filesystem::copy_options::overwrite_existing);
  }
  std::string ours() const { return folder / "ours"; }
  std::string theirs() const { return folder / "theirs"; }
  std::string server() const { return folder / "server"; }
  std::string client(const std::string& name) const { return folder / ("client-" + name); }
  TemporaryFolder folder;
};

class ControlTls : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { certificates_ = std::make_unique<Certificates>(); }
  static void TearDownTestSuite() { certificates_.reset(); }
  ControlTls()
      : control_({}, {.host = "127.0.0.1",
                      .port = 0,
                      .listens_on_tcp = true,
                      .certificates = certificates_->server(),
                      .allow = {"alice"},
                      .peers = {"host-b"},
                      .web = {.listens = true,
                              .host = "127.0.0.1",
                              .port = 0,
                              .allow = {"host-b"},
                              .certificates = certificates_->server()}}) {
    for (const std::string& address : control_.server->addresses()) {
      if (address.starts_with("https:")) address_ = must(GatewayAddress::parse(address));
    }
    address_.host = "localhost";
  }
  Result<std::unique_ptr<ControlClient>> connect_as(const std::string& name) {
    address_.certificates = certificates_->client(name);
    return run(
        ControlClient::connect(runtime().context(), address_, {.request_time = std::chrono::seconds(10)}));
  }

  /// What a browser with that certificate is told at /metrics.
  ProgramResult look_as(const std::string& name) {
    const std::string address = control_.server->web_addresses().front();
    EXPECT_TRUE(address.starts_with("https://127.0.0.1:")) << address;
    const std::string folder = certificates_->client(name);
    return run_program({"curl", "-s", "--cacert", certificates_->ours() + "/ca-cert.pem", "--cert",
                        folder + "/client-cert.pem", "--key", folder + "/client-key.pem",
                        address + "metrics"});
  }

  static std::unique_ptr<Certificates> certificates_;
  TestControl control_;
  GatewayAddress address_;
};
std::unique_ptr<Certificates> ControlTls::certificates_;

TEST_F(ControlTls, WhoIsAllowedMayDoEverything) {
  const auto client = must(connect_as("alice"));
  EXPECT_TRUE(run(client->exports()));
  EXPECT_TRUE(run(client->info()));
}

TEST_F(ControlTls, APeerMayPrepareDisksAndNothingElse) {
  const auto client = must(connect_as("host-b"));
  // Who asks is what the certificate says, and not what the request says.
  EXPECT_NE(must(run(client->peer({.verb = "look", .body_json = "{}", .caller = "alice"}))).find("host-b"),
            std::string::npos);
  const auto refused = run(client->add_export({.name = "a", .image = "/etc/shadow"}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), ErrorKind::permission) << refused.error().message();
}

TEST_F(ControlTls, WhoMayLookIsAListOfItsOwn) {
  EXPECT_NE(look_as("host-b").out.find("diskferry_up 1"), std::string::npos);
  EXPECT_NE(look_as("alice").out.find("web.allow"), std::string::npos);
  const auto stranger = look_as("stranger");
  EXPECT_NE(stranger.exit_code, 0);
  EXPECT_EQ(stranger.out, "");
}

TEST_F(ControlTls, WhoIsNotOnTheListIsRefused) {
  const auto client = connect_as("mallory");
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().kind(), ErrorKind::permission) << client.error().message();
  EXPECT_NE(client.error().message().find("mallory"), std::string::npos) << client.error().message();
}

TEST_F(ControlTls, ACertificateOfAnotherAuthorityIsRefused) {
  const auto client = connect_as("stranger");
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().kind(), ErrorKind::permission) << client.error().message();
}

TEST_F(ControlTls, AServerOfAnotherAuthorityIsNotBelieved) {
  const auto client = connect_as("elsewhere");
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().kind(), ErrorKind::permission) << client.error().message();
}

TEST_F(ControlTls, AServerOfAnotherNameIsNotBelieved) {
  address_.server_name = "host-z";
  const auto client = connect_as("alice");
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().kind(), ErrorKind::permission) << client.error().message();
}

TEST_F(ControlTls, TheServerIsKnownByItsAddressToo) {
  address_.host = "127.0.0.1";
  EXPECT_TRUE(connect_as("alice"));
}

TEST_F(ControlTls, ClientsWithoutACertificateOrWithoutTlsGetNothing) {
  const std::string port = std::to_string(address_.port);
  const std::string authority = certificates_->ours() + "/ca-cert.pem";
  const auto bare =
      run_program({"curl", "-sS", "--cacert", authority, "https://localhost:" + port + "/v1/info"});
  EXPECT_NE(bare.exit_code, 0);
  EXPECT_EQ(bare.out, "");
  const auto plain = run_program({"curl", "-sS", "http://localhost:" + port + "/v1/info"});
  EXPECT_NE(plain.exit_code, 0);
  EXPECT_EQ(plain.out, "");
  const std::string alice = certificates_->client("alice");
  const auto good =
      run_program({"curl", "-sS", "--cacert", authority, "--cert", alice + "/client-cert.pem", "--key",
                   alice + "/client-key.pem", "https://localhost:" + port + "/v1/info"});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_NE(good.out.find("fake"), std::string::npos);
}

TEST_F(ControlTls, AMissingCertificateIsNamed) {
  address_.certificates = "/nonexistent";
  const auto client = run(ControlClient::connect(runtime().context(), address_));
  ASSERT_FALSE(client);
  EXPECT_NE(client.error().message().find("client-cert.pem"), std::string::npos) << client.error().message();
}

}  // namespace
}  // namespace diskferry::test
