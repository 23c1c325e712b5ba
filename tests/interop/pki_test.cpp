// What `diskferry pki` makes, as the programs see it that have to trust it: openssl, certtool, libnbd, QEMU
// and our own server and client.
#include "tests/support/child_process.hpp"
#include "tests/support/test_runtime.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/stat.h>

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>

namespace diskferry::test {
namespace {

using testing::HasSubstr;

ProgramResult diskferry(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), DISKFERRY_PROGRAM);
  return run_program(arguments);
}
ProgramResult pki(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "pki");
  return diskferry(std::move(arguments));
}
void expect_done(const ProgramResult& ran) {
  EXPECT_EQ(ran.exit_code, 0) << ran.err << ran.out;
}
std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// One authority with two hosts for all tests: keys take a while to find.
class Pki : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    made_ = std::make_unique<TemporaryFolder>();
    expect_done(pki({"init", made(), "--name", "Test authority"}));
    expect_done(pki({"host", made(), "host-a", "--address", "127.0.0.1", "--address", "localhost"}));
    expect_done(pki({"host", made(), "host-b", "--key-type", "ec"}));
    expect_done(pki({"init", *made_ / "stranger", "--key-type", "ec"}));
    expect_done(pki({"host", *made_ / "stranger", "host-a", "--address", "localhost", "--key-type", "ec"}));
  }
  static void TearDownTestSuite() { made_.reset(); }
  static std::string made() { return *made_ / "pki"; }
  static std::string host_a() { return made() + "/host-a"; }
  static std::string host_b() { return made() + "/host-b"; }
  static std::string strangers_host() { return *made_ / "stranger/host-a"; }

  /// A copy that a test may change.
  std::string copy() const {
    std::filesystem::copy(made(), folder / "pki", std::filesystem::copy_options::recursive);
    return folder / "pki";
  }
  /// A folder with only the authority's certificate, for a client that does not say who it is.
  std::string only_authority() const {
    std::filesystem::create_directories(folder / "only");
    std::filesystem::copy_file(made() + "/ca-cert.pem", folder / "only/ca-cert.pem",
                               std::filesystem::copy_options::skip_existing);
    return folder / "only";
  }
  /// Starts our server on a port of its own and returns that.
  std::string serve(const std::string& certificates, std::vector<std::string> more = {}) {
    std::ofstream(folder / "disk.raw") << std::string(1 << 20, 'd');
    std::vector<std::string> command{DISKFERRY_PROGRAM,
                                     "export",
                                     "-f",
                                     "raw",
                                     "--listen",
                                     "nbds://127.0.0.1:0",
                                     "--tls",
                                     "require",
                                     "--tls-certificates",
                                     certificates,
                                     "--tls-verify-peer",
                                     "--name",
                                     "disk"};
    command.insert(command.end(), more.begin(), more.end());
    command.push_back(folder / "disk.raw");
    server_.emplace(command, folder / "log");
    const auto port = [&] {
      const std::string log = content(folder / "log");
      const auto begin = log.find("127.0.0.1:");
      const auto end = log.find('/', begin);
      return begin == std::string::npos || end == std::string::npos
                 ? ""
                 : log.substr(begin + 10, end - begin - 10);
    };
    EXPECT_TRUE(wait_until([&] { return !port().empty(); })) << content(folder / "log");
    return port();
  }
  static ProgramResult nbdinfo(const std::string& port, const std::string& certificates,
                               const std::string& host = "localhost") {
    return run_program(
        {"nbdinfo", "--size", "nbds://" + host + ":" + port + "/disk?tls-certificates=" + certificates});
  }

  TemporaryFolder folder;

 private:
  static inline std::unique_ptr<TemporaryFolder> made_;
  std::optional<ChildProcess> server_;
};

TEST_F(Pki, OpensslAndCerttoolTrustEachCertificateForItsPurposeOnly) {
  struct Row {
    const char* name;
    std::string certificate;
    const char* purpose;
    bool is_good;
  };
  const std::vector<Row> rows{
      {"a server as a server", host_a() + "/server-cert.pem", "sslserver", true},
      {"a server as a client", host_a() + "/server-cert.pem", "sslclient", false},
      {"a client as a client", host_a() + "/client-cert.pem", "sslclient", true},
      {"a client as a server", host_a() + "/client-cert.pem", "sslserver", false},
      {"an elliptic server", host_b() + "/server-cert.pem", "sslserver", true},
      {"a stranger", strangers_host() + "/server-cert.pem", "sslserver", false},
      {"the authority as a server", made() + "/ca-cert.pem", "sslserver", false},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const auto verified = run_program({"openssl", "verify", "-x509_strict", "-purpose", row.purpose,
                                       "-CAfile", made() + "/ca-cert.pem", row.certificate});
    EXPECT_EQ(verified.exit_code == 0, row.is_good) << verified.out << verified.err;
  }
  for (const char* host : {"localhost", "host-a"})
    expect_done(run_program({"certtool", "--verify", "--verify-profile", "medium", "--load-ca-certificate",
                             made() + "/ca-cert.pem", "--verify-hostname", host, "--verify-purpose",
                             "1.3.6.1.5.5.7.3.1", "--infile", host_a() + "/server-cert.pem"}));
  EXPECT_NE(run_program({"certtool", "--verify", "--load-ca-certificate", made() + "/ca-cert.pem",
                         "--verify-hostname", "elsewhere", "--infile", host_a() + "/server-cert.pem"})
                .exit_code,
            0);
}

TEST_F(Pki, AddressesArriveInTheCertificate) {
  const std::string own = folder / "own";
  expect_done(pki({"init", own, "--key-type", "ec"}));
  expect_done(pki({"host", own, "10.0.0.7", "--address", "fe80::1", "--address=*.example.org",
                   "--address=10.0.0.7", "--key-type", "ec", "--out", folder / "elsewhere/deep"}));
  const auto text = run_program({"openssl", "x509", "-noout", "-ext", "subjectAltName", "-in",
                                 folder / "elsewhere/deep/server-cert.pem"});
  EXPECT_THAT(text.out, HasSubstr("IP Address:10.0.0.7, IP Address:FE80:0:0:0:0:0:0:1, DNS:*.example.org\n"));
}

TEST_F(Pki, OurServerLetsHostsOfTheAuthorityInAndNobodyElse) {
  const std::string port = serve(host_a());
  EXPECT_EQ(nbdinfo(port, host_a()).out, "1048576\n");
  EXPECT_EQ(nbdinfo(port, host_b()).out, "1048576\n") << "with an elliptic key";
  EXPECT_EQ(nbdinfo(port, host_b(), "127.0.0.1").out, "1048576\n") << "by address";
  EXPECT_NE(nbdinfo(port, only_authority()).exit_code, 0) << "a client without a certificate";
  EXPECT_NE(nbdinfo(port, strangers_host()).exit_code, 0) << "a host of another authority";
  expect_done(diskferry({"inspect", "nbds://localhost:" + port + "/disk?tls-certificates=" + host_b()}));
}

TEST_F(Pki, TheNameOfAHostIsWhatAllowCompares) {
  const std::string port = serve(host_a(), {"--allow", "host-b"});
  EXPECT_EQ(nbdinfo(port, host_b()).exit_code, 0);
  EXPECT_NE(nbdinfo(port, host_a()).exit_code, 0);
}

TEST_F(Pki, QemuIsAClientOfOurServer) {
  const std::string port = serve(host_a());
  const auto info = [&](const std::string& certificates, const std::string& host) {
    return run_program(
        {"qemu-img", "info", "--object",
         "tls-creds-x509,id=t,endpoint=client,verify-peer=on,dir=" + certificates, "--image-opts",
         "driver=nbd,host=127.0.0.1,export=disk,tls-creds=t,tls-hostname=" + host + ",port=" + port});
  };
  expect_done(info(host_b(), "host-a"));
  EXPECT_NE(info(host_b(), "host-b").exit_code, 0) << "the server is not that host";
  EXPECT_NE(info(strangers_host(), "host-a").exit_code, 0);
}

TEST_F(Pki, QemuIsAServerOfOurClient) {
  std::ofstream(folder / "disk.raw") << std::string(1 << 20, 'd');
  std::string port;
  std::optional<ChildProcess> server;
  // Another program may take the port between asking and using it.
  for (int tries = 0; tries < 5 && !server; ++tries) {
    port = std::to_string(free_tcp_port());
    server.emplace(
        std::vector<std::string>{"qemu-nbd", "-t", "-f", "raw", "-x", "disk", "-b", "127.0.0.1", "-p", port,
                                 "--object",
                                 "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir=" + host_a(),
                                 "--tls-creds", "t", folder / "disk.raw"},
        folder / "qemu-log");
    const auto number = static_cast<std::uint16_t>(std::stoi(port));
    if (!wait_until([&] { return !server->is_running() || is_listening(number); }) || !server->is_running())
      server.reset();
  }
  ASSERT_TRUE(server) << content(folder / "qemu-log");
  const auto inspect = [&](const std::string& certificates, const std::string& host) {
    return diskferry({"inspect", "nbds://" + host + ":" + port + "/disk?tls-certificates=" + certificates});
  };
  expect_done(inspect(host_b(), "localhost"));
  expect_done(inspect(host_a(), "127.0.0.1"));
  EXPECT_NE(inspect(only_authority(), "localhost").exit_code, 0);
  EXPECT_NE(inspect(strangers_host(), "localhost").exit_code, 0);
}

TEST_F(Pki, RenewedCertificatesAreForTheSameKeys) {
  const std::string pki_folder = copy();
  const std::string host = pki_folder + "/host-a";
  const std::string old_key = content(host + "/server-key.pem");
  const std::string old_certificate = content(host + "/server-cert.pem");
  const auto nothing = pki({"renew", pki_folder});
  expect_done(nothing);
  EXPECT_THAT(nothing.out, HasSubstr("nothing ends within 30 days"));
  EXPECT_EQ(content(host + "/server-cert.pem"), old_certificate);

  expect_done(pki({"renew", pki_folder, "--within", "800", "--days", "1000"}));
  EXPECT_EQ(content(host + "/server-key.pem"), old_key);
  EXPECT_NE(content(host + "/server-cert.pem"), old_certificate);
  const auto text = run_program({"openssl", "x509", "-noout", "-ext", "subjectAltName", "-checkend",
                                 "84672000", "-in", host + "/server-cert.pem"});
  EXPECT_EQ(text.exit_code, 0) << "valid for another 980 days: " << text.out;
  EXPECT_THAT(text.out, HasSubstr("DNS:host-a, IP Address:127.0.0.1, DNS:localhost"));
  EXPECT_EQ(nbdinfo(serve(host), host_b()).exit_code, 0) << "old and new ones go together";
}

TEST_F(Pki, ARenewedAuthorityVerifiesWhatItSignedBefore) {
  const std::string pki_folder = copy();
  expect_done(pki({"renew", pki_folder, "--authority", "--days", "5000"}));
  for (const auto& [authority, host] : std::vector<std::pair<std::string, std::string>>{
           {pki_folder, host_a()}, {made(), pki_folder + "/host-b"}})
    expect_done(run_program({"openssl", "verify", "-x509_strict", "-CAfile", authority + "/ca-cert.pem",
                             host + "/server-cert.pem"}));
  EXPECT_THAT(pki({"show", pki_folder}).out, HasSubstr("not the authority's of today"));
  // Then the hosts get the new one, without being named.
  expect_done(pki({"renew", pki_folder}));
  EXPECT_EQ(content(pki_folder + "/host-b/ca-cert.pem"), content(pki_folder + "/ca-cert.pem"));
  EXPECT_THAT(pki({"show", pki_folder}).out, testing::Not(HasSubstr("problem")));
}

TEST_F(Pki, NoCertificateOutlivesItsAuthority) {
  const std::string own = folder / "own";
  expect_done(pki({"init", own, "--days", "10", "--key-type", "ec"}));
  expect_done(pki({"host", own, "host", "--key-type", "ec"}));
  const auto shown = pki({"show", own, "--json"});
  const auto json = boost::json::parse(shown.out);
  EXPECT_EQ(json.at("authority").at("not-after"), json.at("hosts").at(0).at("server").at("not-after"));
  EXPECT_EQ(json.at("problems").as_array().size(), 1u) << shown.out;
  EXPECT_EQ(json.at("hosts").at(0).at("problems").as_array().size(), 2u) << shown.out;
}

TEST_F(Pki, NothingIsReplacedUnlessAsked) {
  const std::string pki_folder = copy();
  const std::string key = content(pki_folder + "/ca-key.pem");
  const std::string server = content(pki_folder + "/host-b/server-cert.pem");
  for (const auto& command :
       std::vector<std::vector<std::string>>{{"init", pki_folder},
                                             {"host", pki_folder, "host-b"},
                                             {"host", pki_folder, "other", "--out", host_a()}}) {
    const auto ran = pki(command);
    EXPECT_EQ(ran.exit_code, 3) << ran.out;
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr("--force"));
  }
  EXPECT_EQ(content(pki_folder + "/ca-key.pem"), key);
  EXPECT_EQ(content(pki_folder + "/host-b/server-cert.pem"), server);
  expect_done(pki({"host", pki_folder, "host-b", "--force", "--key-type", "ec"}));
  EXPECT_NE(content(pki_folder + "/host-b/server-cert.pem"), server);
  expect_done(pki({"init", pki_folder, "--force", "--key-type", "ec"}));
  const auto shown = pki({"show", pki_folder});
  EXPECT_THAT(shown.out, HasSubstr("not the authority's of today"));
  const auto renewed = pki({"renew", pki_folder});
  EXPECT_EQ(renewed.exit_code, 3) << renewed.err;
  EXPECT_THAT(renewed.err, HasSubstr("another authority signed it"));
}

TEST_F(Pki, KeysAreForTheirOwnerAloneAndNothingIsLeftBeside) {
  const mode_t before = umask(0);
  const std::string own = folder / "own";
  expect_done(pki({"init", own, "--key-type", "ec"}));
  expect_done(pki({"host", own, "host", "--key-type", "ec"}));
  umask(before);
  std::vector<std::string> files;
  for (const auto& one : std::filesystem::recursive_directory_iterator(own)) {
    struct stat found{};
    ASSERT_EQ(stat(one.path().c_str(), &found), 0);
    const std::string name = std::filesystem::relative(one.path(), own).string();
    const unsigned expected = one.is_directory() ? 0700u : name.ends_with("key.pem") ? 0600u : 0644u;
    EXPECT_EQ(found.st_mode & 07777u, expected) << name;
    files.push_back(name);
  }
  EXPECT_THAT(files, testing::UnorderedElementsAre("ca-cert.pem", "ca-key.pem", "host", "host/ca-cert.pem",
                                                   "host/server-cert.pem", "host/server-key.pem",
                                                   "host/client-cert.pem", "host/client-key.pem"));
}

TEST_F(Pki, RefusalsSayWhatIsWrong) {
  const std::string pki_folder = copy();
  std::filesystem::copy_file(strangers_host() + "/../ca-key.pem", folder / "pki/host-b/ca-key.pem");
  std::ofstream(folder / "pki/host-a/server-cert.pem") << "-----BEGIN CERTIFICATE-----\nnoise\n";
  struct Row {
    const char* name;
    std::vector<std::string> command;
    int exit_code;
    const char* part;
  };
  const std::vector<Row> rows{
      {"no authority", {"host", folder / "nowhere", "h"}, 3, "diskferry pki init"},
      {"nothing to show", {"show", only_authority() + "/.."}, 3, "pki init"},
      {"a path as a name", {"host", pki_folder, "../evil"}, 2, "letters, digits"},
      {"an option as a name", {"host", pki_folder, "--", "-h"}, 2, "letters, digits"},
      {"a name with a comma", {"host", pki_folder, "a,DNS:b"}, 2, "letters, digits"},
      {"an address with a comma",
       {"host", pki_folder, "c", "--address", "a,IP:10.0.0.1"},
       2,
       "neither an IP"},
      {"no days", {"host", pki_folder, "c", "--days", "0"}, 2, "1 to 36500"},
      {"too many days", {"init", folder / "new", "--days", "40000"}, 2, "1 to 36500"},
      {"an odd authority", {"init", folder / "new", "--name", "a\nb"}, 2, "printed"},
      {"an unknown kind of key", {"init", folder / "new", "--key-type", "dsa"}, 2, "not one of"},
      {"no verb", {}, 2, "subcommand"},
      {"another's key", {"host", folder / "pki/host-b", "c"}, 3, "not that of the authority"},
      {"a damaged certificate", {"renew", pki_folder, "host-a"}, 3, "server-cert.pem"},
      {"a host that is not there", {"renew", pki_folder, "host-z"}, 3, "host-z"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const auto ran = pki(row.command);
    EXPECT_EQ(ran.exit_code, row.exit_code) << ran.err;
    EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(row.part));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "new"));
  EXPECT_FALSE(std::filesystem::exists(folder / "evil"));
  const auto shown = pki({"show", pki_folder});
  expect_done(shown);
  EXPECT_THAT(shown.out, HasSubstr("problem"));
}

}  // namespace
}  // namespace diskferry::test
