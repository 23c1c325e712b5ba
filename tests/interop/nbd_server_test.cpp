// Our NBD server and the clients that users have: nbdinfo, nbdcopy, qemu-img, qemu-io, qemu-nbd, fio; and
// libnbd with its own checks switched off, which sends what no honest client would.
#include "diskferry/units.hpp"
#include "tests/support/pattern.hpp"
#include "tests/unit/nbd/test_server.hpp"

#include <cerrno>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <libnbd.h>

namespace diskferry::test {
namespace {
using namespace diskferry::nbd_server;
using testing::HasSubstr;
using testing::Not;

constexpr std::uint64_t disk_bytes = (8u << 20) + 513;

ProgramResult expect_success(const std::vector<std::string>& arguments) {
  auto result = run_program(arguments);
  std::string line;
  for (const auto& one : arguments) line += one + " ";
  EXPECT_EQ(result.exit_code, 0) << line << "\n" << result.out << result.err;
  return result;
}
void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}
std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto bytes = diskferry::as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

class NbdServerInterop : public testing::Test {
 protected:
  void serve(ServerOptions options = {}) {
    server.emplace(std::move(options));
    server->add({.name = "disk", .description = "the test's disk", .writable = true},
                MemoryOptions{.size_bytes = disk_bytes});
    server->add({.name = "reading", .description = {}}, MemoryOptions{.size_bytes = 4096});
    server->start();
  }
  std::optional<TestServer> server;
  TemporaryFolder folder;
};

TEST_F(NbdServerInterop, NbdinfoListsEverything) {
  serve();
  const auto listed = expect_success({"nbdinfo", "--list", "--json", server->uri()});
  for (const char* word : {"\"disk\"", "the test's disk", "\"reading\"", "base:allocation",
                           "qemu:allocation-depth", "\"export-size\": 8389121", "\"can_multi_conn\": true"})
    EXPECT_THAT(listed.out, HasSubstr(word));
  const auto qemu = expect_success({"qemu-nbd", "--list", "-k", server->path()});
  EXPECT_THAT(qemu.out, HasSubstr("exports available: 2"));
  EXPECT_THAT(qemu.out, HasSubstr("size:  8389121"));
}
TEST_F(NbdServerInterop, NbdcopyBothWaysKeepsHoles) {
  serve();
  auto data = pattern(0, disk_bytes);
  std::fill(data.begin() + (1 << 20), data.begin() + (3 << 20), std::byte{0});
  write_file(folder / "in", data);
  expect_success({"nbdcopy", "--connections=4", folder / "in", server->uri("disk")});
  expect_success({"nbdcopy", "--connections=4", server->uri("disk"), folder / "out"});
  EXPECT_EQ(read_file(folder / "out"), data);
  const auto map = expect_success({"nbdinfo", "--map", server->uri("disk")});
  EXPECT_THAT(map.out, HasSubstr("2097152    3  hole,zero"));
}
TEST_F(NbdServerInterop, QemuImgConvertsAndCompares) {
  serve();
  const auto data = pattern(7, disk_bytes & ~511ull);
  write_file(folder / "in", data);
  expect_success({"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", folder / "in", server->uri("disk")});
  expect_success({"qemu-img", "compare", "-f", "raw", "-F", "raw", folder / "in", server->uri("disk")});
  const auto map = expect_success({"qemu-img", "map", "--output=json", "-f", "raw", server->uri("disk")});
  EXPECT_THAT(map.out, HasSubstr("\"data\": true"));
}
TEST_F(NbdServerInterop, QemuIoWritesZeroesDiscardsAndFlushes) {
  serve();
  const auto result = expect_success({"qemu-io",
                                      "-f",
                                      "raw",
                                      "-c",
                                      "write -P 7 0 1M",
                                      "-c",
                                      "write -f -P 8 1M 4k",
                                      "-c",
                                      "write -z -u 64k 64k",
                                      "-c",
                                      "discard 128k 64k",
                                      "-c",
                                      "flush",
                                      "-c",
                                      "read -P 7 0 64k",
                                      "-c",
                                      "read -P 0 64k 64k",
                                      "-c",
                                      "read -P 8 1M 4k",
                                      server->uri("disk")});
  EXPECT_THAT(result.out, Not(HasSubstr("failed")));
  const auto refused = run_program({"qemu-io", "-f", "raw", "-c", "write 0 512", server->uri("reading")});
  EXPECT_NE(refused.exit_code, 0);
}
TEST_F(NbdServerInterop, FioVerifiesWhatItWrote) {
  serve();
  for (const char* connections : {"1", "4"}) {
    expect_success({"fio", "--name=verify", "--ioengine=nbd", "--uri=" + server->uri("disk"),
                    "--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned=0", "--iodepth=32", "--size=2M",
                    std::string("--numjobs=") + connections, "--offset_increment=2M", "--verify=crc32c",
                    "--randrepeat=0", "--verify_state_save=0", "--output-format=json"});
  }
}
TEST_F(NbdServerInterop, QemuReadsTheDepthOfLayers) {
  serve();
  expect_success({"qemu-img", "map", "--output=json", "--image-opts",
                  "driver=nbd,path=" + server->path() + ",export=disk,x-dirty-bitmap=qemu:allocation-depth"});
}

// TLS.

class NbdServerTls : public NbdServerInterop {
 protected:
  void make_certificates() {
    const auto openssl = [&](std::vector<std::string> arguments) {
      arguments.insert(arguments.begin(), "openssl");
      expect_success(arguments);
    };
    openssl({"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "ca-key.pem", "-out",
             folder / "ca-cert.pem", "-subj", "/CN=Test CA", "-days", "2"});
    std::ofstream(folder / "extensions")
        << "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    for (const auto& [name, subject] :
         {std::pair{"server", "/CN=localhost"}, {"client", "/O=Org/CN=alice"}}) {
      const std::string stem = folder / name;
      openssl({"req", "-newkey", "rsa:2048", "-nodes", "-keyout", stem + "-key.pem", "-out", stem + ".csr",
               "-subj", subject});
      openssl({"x509", "-req", "-in", stem + ".csr", "-CA", folder / "ca-cert.pem", "-CAkey",
               folder / "ca-key.pem", "-CAcreateserial", "-out", stem + "-cert.pem", "-days", "2", "-extfile",
               folder / "extensions"});
    }
  }
  void serve_tcp(TlsOptions tls) {
    ServerOptions options{.listen = {{.host = "localhost", .port = 0}}, .tls = std::move(tls)};
    serve(std::move(options));
    tcp_uri = server->server->addresses("disk").front();
  }
  std::string tcp_uri;
};

TEST_F(NbdServerTls, CertificatesAreVerifiedBothWays) {
  make_certificates();
  serve_tcp({.mode = TlsMode::require, .certificates = folder.path(), .verify_peer = true});
  ASSERT_THAT(tcp_uri, testing::StartsWith("nbds://127.0.0.1:"));
  const auto size = expect_success(
      {"nbdinfo", "--size", tcp_uri + "?tls-certificates=" + folder.path() + "&tls-verify-peer=true"});
  EXPECT_EQ(size.out, "8389121\n");
  const auto plain = run_program({"nbdinfo", "--size", "nbd" + tcp_uri.substr(4)});
  EXPECT_THAT(plain.err, HasSubstr("requires TLS"));
  const std::string stranger = folder / "stranger";
  std::filesystem::create_directory(stranger);
  std::filesystem::copy(folder / "ca-cert.pem", stranger);
  EXPECT_NE(run_program({"nbdinfo", "--size", tcp_uri + "?tls-certificates=" + stranger}).exit_code, 0);
  const std::string port = tcp_uri.substr(17, tcp_uri.find('/', 17) - 17);
  const auto qemu = expect_success(
      {"qemu-img", "info", "--object", "tls-creds-x509,id=t,endpoint=client,dir=" + folder.path(),
       "--image-opts", "driver=nbd,host=localhost,export=disk,tls-creds=t,port=" + port});
  EXPECT_THAT(qemu.out, HasSubstr("virtual size"));
}
TEST_F(NbdServerTls, OnlyAllowedNamesAreLetIn) {
  make_certificates();
  for (const auto& [allowed, is_in] :
       {std::pair{"alice", true}, {"O=Org,CN=alice", true}, {"CN=alice,O=Org", true}, {"mallory", false}}) {
    serve_tcp(
        {.mode = TlsMode::require, .certificates = folder.path(), .verify_peer = true, .allow = {allowed}});
    const auto result = run_program({"nbdinfo", "--size", tcp_uri + "?tls-certificates=" + folder.path()});
    EXPECT_EQ(result.exit_code == 0, is_in) << allowed << result.err;
    server.reset();
  }
}
TEST_F(NbdServerTls, PreSharedKeysCarryAWholeDisk) {
  std::ofstream(folder / "keys") << "bob:00112233445566778899aabbccddeeff\n";
  std::ofstream(folder / "wrong") << "bob:ff112233445566778899aabbccddeeff\n";
  serve({.tls = {.mode = TlsMode::require, .psk_file = folder / "keys"}});
  const auto uri = [&](const char* keys) {
    return "nbds+unix://bob@/disk?socket=" + server->path() + "&tls-psk-file=" + (folder / keys);
  };
  const auto data = pattern(3, disk_bytes);
  write_file(folder / "in", data);
  expect_success({"nbdcopy", "--connections=2", folder / "in", uri("keys")});
  expect_success({"nbdcopy", uri("keys"), folder / "out"});
  EXPECT_EQ(read_file(folder / "out"), data);
  EXPECT_NE(run_program({"nbdinfo", "--size", uri("wrong")}).exit_code, 0);
}
TEST_F(NbdServerTls, BadKeyFilesAreRefusedWithoutShowingThem) {
  for (const char* content : {"bob", "bob:xyz", "bob:123", ":00", ""}) {
    std::ofstream(folder / "keys") << content << "\n";
    Server refused(runtime().context(), {.tls = {.mode = TlsMode::on, .psk_file = folder / "keys"}});
    const auto started = run(refused.start());
    ASSERT_FALSE(started) << content;
    EXPECT_THAT(started.error().message(), Not(HasSubstr("xyz")));
    EXPECT_EQ(started.error().kind(), ErrorKind::invalid_argument);
  }
}

TEST_F(NbdServerTls, KeysAndCertificatesTogetherNeedARuleForThoseWithoutAKey) {
  std::ofstream(folder / "keys") << "bob:00112233445566778899aabbccddeeff\n";
  Server refused(
      runtime().context(),
      {.tls = {.mode = TlsMode::require, .certificates = folder.path(), .psk_file = folder / "keys"}});
  const auto started = run(refused.start());
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message(), HasSubstr("a client without a key"));
}

// libnbd with its checks switched off.

class LibnbdClient {
 public:
  explicit LibnbdClient(const std::string& uri) : handle_(nbd_create()) {
    nbd_set_strict_mode(handle_, 0);
    nbd_add_meta_context(handle_, "base:allocation");
    if (nbd_connect_uri(handle_, uri.c_str()) != 0) throw std::runtime_error(nbd_get_error());
  }
  ~LibnbdClient() { nbd_close(handle_); }
  LibnbdClient(const LibnbdClient&) = delete;
  LibnbdClient& operator=(const LibnbdClient&) = delete;
  nbd_handle* get() { return handle_; }

 private:
  nbd_handle* handle_;
};
int no_extents(void*, const char*, std::uint64_t, std::uint32_t*, std::size_t, int*) {
  return 0;
}

TEST_F(NbdServerInterop, LibnbdWithoutItsChecksGetsTheListedErrors) {
  serve();
  LibnbdClient writing(server->uri("disk"));
  LibnbdClient reading(server->uri("reading"));
  std::vector<char> buffer(1 << 20);
  const auto error_of = [](int returned) { return returned == 0 ? 0 : nbd_get_errno(); };
  nbd_handle* w = writing.get();
  nbd_handle* r = reading.get();
  EXPECT_EQ(error_of(nbd_pread(w, buffer.data(), 512, disk_bytes, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_pwrite(w, buffer.data(), 1 << 20, disk_bytes - 1, 0)), ENOSPC);
  EXPECT_EQ(error_of(nbd_zero(w, 512, disk_bytes - 1, 0)), ENOSPC);
  EXPECT_EQ(error_of(nbd_trim(w, 512, disk_bytes - 1, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_cache(w, 512, disk_bytes - 1, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_block_status(w, 512, disk_bytes, {no_extents, nullptr, nullptr}, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_block_status(w, 0, 0, {no_extents, nullptr, nullptr}, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_pwrite(r, buffer.data(), 512, 0, 0)), EPERM);
  EXPECT_EQ(error_of(nbd_zero(r, 512, 0, 0)), EPERM);
  EXPECT_EQ(error_of(nbd_trim(r, 512, 0, 0)), EPERM);
  EXPECT_EQ(error_of(nbd_pwrite(w, buffer.data(), 512, 0, LIBNBD_CMD_FLAG_DF)), EINVAL);
  EXPECT_EQ(error_of(nbd_pwrite(w, buffer.data(), 512, 0, 0x8000)), EINVAL);
  EXPECT_EQ(error_of(nbd_pread(w, buffer.data(), 0, 0, 0)), 0);
  EXPECT_EQ(error_of(nbd_pwrite(w, buffer.data(), 0, 0, 0)), 0);
  EXPECT_EQ(error_of(nbd_flush(w, LIBNBD_CMD_FLAG_FUA)), 0);
  std::vector<char> large(33u << 20);
  EXPECT_EQ(error_of(nbd_pwrite(w, large.data(), large.size(), 0, 0)), EINVAL);
  EXPECT_EQ(error_of(nbd_flush(w, 0)), 0) << "still in step after all that";
}

}  // namespace
}  // namespace diskferry::test
