// The pure parts of drivers/foreign: what QEMU is told, what it said, which system calls a child gets; and
// which names and contents make a format (drivers/image/format).
#include "drivers/foreign/endpoint.hpp"
#include "drivers/foreign/formats.hpp"
#include "drivers/foreign/last_words.hpp"
#include "drivers/foreign/node_options.hpp"
#include "drivers/foreign/syscall_filter.hpp"
#include "drivers/image/format.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <map>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <gtest/gtest.h>

namespace diskferry::foreign {
namespace {

// --- options ----------------------------------------------------------------------------------------------

TEST(ForeignOptions, ANameEndsNoOption) {
  EXPECT_EQ(quoted("a,file.filename=/etc/passwd,,b"), "a,,file.filename=/etc/passwd,,,,b");
  EXPECT_EQ(image_options({.format = "vmdk"}, file_node("/x,driver=raw.vmdk", false)),
            "driver=vmdk,read-only=on,file.driver=file,file.filename=/x,,driver=raw.vmdk");
  EXPECT_EQ(image_options({.format = "vhdx", .force_share = true}, file_node("/dev/vg/a", true)),
            "driver=vhdx,read-only=on,force-share=on,file.driver=host_device,file.filename=/dev/vg/a");
  EXPECT_EQ(image_options({.format = "vdi"}, nbd_node(4)),
            "driver=vdi,read-only=on,file.driver=nbd,file.server.type=fd,file.server.str=4");
}

std::string node_text(const std::string& uri) {
  const auto parsed = ImageUri::parse(uri);
  if (!parsed) return parsed.error().why();
  const auto endpoint = parse_endpoint(*parsed);
  if (!endpoint) return endpoint.error().message();
  return image_options({.format = "raw"}, network_node(*endpoint));
}

TEST(ForeignOptions, ServersAreToldPartByPart) {
  const std::string start = "driver=raw,read-only=on,file.driver=";
  const std::map<std::string, std::string> expected{
      {"https://host/a/b.vmdk",
       "https,file.url=https://host:443/a/b.vmdk,file.readahead=1048576,file.timeout=30,file.sslverify=on"},
      {"http://alice@[::1]:8080/a%2Cb%20c?password-file=/p",
       "http,file.url=http://[::1]:8080/a%2Cb%20c,file.readahead=1048576,file.timeout=30,file.username=alice,"
       "file.password-secret=password"},
      {"https://host/x?tls-verify-peer=no&cookie-file=/c&stall-timeout=1.5",
       "https,file.url=https://host:443/"
       "x,file.readahead=1048576,file.timeout=2,file.sslverify=off,file.cookie-secret=cookie"},
      {"ssh://bob%2Cx@host/srv/a%2Cfile.driver%3Dnull-co",
       "ssh,file.server.host=host,file.server.port=22,file.path=/srv/a,,file.driver=null-co,file.user=bob,,x,"
       "file.host-key-check.mode=known_hosts"},
      {"ssh://bob@host:2222/a?host-key-check=off",
       "ssh,file.server.host=host,file.server.port=2222,file.path=/a,file.user=bob,file.host-key-check.mode="
       "none"},
      {"ssh://bob@host/a?host-key=SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
       "ssh,file.server.host=host,file.server.port=22,file.path=/"
       "a,file.user=bob,file.host-key-check.mode=hash,"
       "file.host-key-check.type=sha256,file.host-key-check.hash="
       "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
  };
  for (const auto& [uri, options] : expected) EXPECT_EQ(node_text(uri), start + options) << uri;
}

TEST(ForeignOptions, WhatMakesNoSenseIsRefused) {
  struct Row {
    std::string uri;
    std::string says;
  };
  const std::vector<Row> rows{
      {"https:///x", "host"},
      {"https://host/", "path"},
      {"https://host", "path"},
      {"https://alice:secret@host/x", "password"},
      {"ssh://alice:secret@host/x", "password"},
      {"https://host/x?password-file=/p", "user"},
      {"http://host/x?ca-file=/c", "https"},
      {"http://host/x?tls-verify-peer=true", "https"},
      {"https://host/x?ca-file=/c&tls-verify-peer=false", "exclude"},
      {"https://host/x?connections=0", "connections"},
      {"https://host/x?stall-timeout=0", "more than 0"},
      {"https://host/x?reconnect-timeout=-1", "reconnect-timeout"},
      {"ssh://host/x?host-key-check=maybe", "host-key-check"},
      {"ssh://host/x?host-key=MD5:00", "SHA256"},
      {"ssh://host/x?host-key=SHA256:AAAA", "SHA256"},
      {"ssh://host/x?host-key=SHA256:" + std::string(43, '!'), "SHA256"},
      {"ssh://host/x?host-key-check=no&host-key=SHA256:" + std::string(64, 'a'), "exclude"},
      {"ssh://host/" + std::string(5000, 'x'), "bytes"},
  };
  for (const Row& row : rows) {
    const std::string said = node_text(row.uri);
    EXPECT_NE(said.find(row.says), std::string::npos) << row.uri << ": " << said;
    EXPECT_EQ(said.find("driver="), std::string::npos) << row.uri;
    EXPECT_EQ(said.find("secret@"), std::string::npos) << said;
  }
}

// --- what it said -----------------------------------------------------------------------------------------

Error after_exit(std::string_view said, bool was_open = false) {
  return error_of({.wait_status = 1 << 8, .was_open = was_open, .said = said}, "disk.vmdk");
}

TEST(ForeignErrors, WhatQemuSaysHasAKind) {
  const std::string opening = "qemu-nbd: Failed to blk_new_open 'driver=vmdk,file.filename=/it's': ";
  struct Row {
    std::string said;
    ErrorKind kind;
  };
  const std::vector<Row> rows{
      {opening + "Could not open '/x': No such file or directory\n", ErrorKind::not_found},
      {opening + "Could not open '/x': Permission denied\n", ErrorKind::permission},
      {opening + "Failed to get shared \"write\" lock\nIs another process using the image [/x]?\n",
       ErrorKind::in_use},
      {opening + "invalid VMDK image descriptor\n", ErrorKind::corrupt},
      {opening + "Unsupported image type 'x'\n", ErrorKind::unsupported},
      {opening + "Unknown protocol 'https'\n", ErrorKind::unsupported},
      {opening + "CURL: Error opening file: Server does not support 'range' (byte ranges).\n",
       ErrorKind::unsupported},
      {opening + "CURL: Error opening file: The requested URL returned error: 404\n", ErrorKind::not_found},
      {opening + "CURL: Error opening file: The requested URL returned error: 401\n", ErrorKind::permission},
      {opening + "CURL: Error opening file: server certificate verification failed. CAfile: none\n",
       ErrorKind::permission},
      {opening + "CURL: Error opening file: Failed to connect to localhost port 1 after 0 ms\n",
       ErrorKind::gone},
      {opening + "no host key was found in known_hosts\n", ErrorKind::permission},
      {opening + "remote host ssh-ed25519 key fingerprint 'a' does not match host_key_check 'b'\n",
       ErrorKind::permission},
      {opening + "failed to authenticate using publickey authentication\n", ErrorKind::permission},
      {"", ErrorKind::corrupt},
  };
  for (const Row& row : rows) {
    const Error error = after_exit(row.said);
    EXPECT_EQ(error.kind(), row.kind) << row.said << ": " << error.message();
    EXPECT_EQ(error.message().find("driver="), std::string::npos) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
  }
  EXPECT_EQ(after_exit("it fell over\n", true).kind(), ErrorKind::io);
}

TEST(ForeignErrors, ASignalIsACrash) {
  const Error error =
      error_of({.wait_status = 11, .was_open = true, .said = "qemu-nbd: oops\n"}, "disk.vmdk");
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_NE(error.message().find("signal 11: oops"), std::string::npos) << error.message();
}

TEST(ForeignErrors, HostileWordsAreShortAndPrintable) {
  EXPECT_EQ(last_words("qemu-nbd: a\x1b[31mb\n\n"), "a\\x1b[31mb");
  EXPECT_LE(last_words("qemu-nbd: " + std::string(100'000, 'x')).size(), 400u);
  EXPECT_EQ(last_words(""), "");
  EXPECT_EQ(last_words("\n\n"), "");
  EXPECT_EQ(last_words("qemu: module not found\nqemu-nbd: the reason\nadvice\n"), "the reason");
}

// --- the filter of system calls ---------------------------------------------------------------------------

/// The kernel's interpreter, for the instructions that are used.
std::uint32_t answer(const std::vector<sock_filter>& program, const seccomp_data& data) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&data);
  std::uint32_t accumulator = 0;
  for (std::size_t at = 0; at < program.size(); ++at) {
    const sock_filter& one = program[at];
    switch (one.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        std::memcpy(&accumulator, bytes + one.k, 4);
        break;
      case BPF_RET | BPF_K:
        return one.k;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += accumulator == one.k ? one.jt : one.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (accumulator & one.k) != 0 ? one.jt : one.jf;
        break;
      default:
        ADD_FAILURE() << "instruction " << one.code;
        return 0;
    }
  }
  ADD_FAILURE() << "the program has no end";
  return 0;
}

constexpr std::uint32_t allowed = SECCOMP_RET_ALLOW;
constexpr std::uint32_t refused = SECCOMP_RET_ERRNO | EPERM;

class Filter {
 public:
  explicit Filter(Sockets sockets) : filter_(make_filter(sockets)) {
    for (const std::size_t at : filter_.own_pid_at) filter_.program[at].k = own_pid;
  }
  std::uint32_t operator()(long call, std::uint64_t first = 0) const {
    seccomp_data data{};
    data.nr = static_cast<int>(call);
#if defined(__x86_64__)
    data.arch = AUDIT_ARCH_X86_64;
#else
    data.arch = AUDIT_ARCH_AARCH64;
#endif
    data.args[0] = first;
    return answer(filter_.program, data);
  }
  std::uint32_t of_architecture(std::uint32_t architecture) const {
    seccomp_data data{};
    data.arch = architecture;
    return answer(filter_.program, data);
  }
  static constexpr std::uint32_t own_pid = 4711;

 private:
  SyscallFilter filter_;
};

TEST(ForeignFilter, WhatAReaderOfImagesNeedsIsAllowed) {
  for (const Sockets sockets : {Sockets::none, Sockets::internet, Sockets::internet_and_unix}) {
    const Filter filter(sockets);
    for (const long call : {SYS_read, SYS_pread64, SYS_openat, SYS_mmap, SYS_futex, SYS_accept4, SYS_listen,
                            SYS_sendmsg, SYS_recvmsg, SYS_execve, SYS_exit_group, SYS_fcntl, SYS_ppoll})
      EXPECT_EQ(filter(call), allowed) << call;
    EXPECT_EQ(filter(SYS_clone, CLONE_VM | CLONE_THREAD), allowed);
    EXPECT_EQ(filter(SYS_tgkill, Filter::own_pid), allowed);
    EXPECT_EQ(filter(SYS_prlimit64, 0), allowed);
  }
}

TEST(ForeignFilter, WhatReachesOutIsRefused) {
  for (const Sockets sockets : {Sockets::none, Sockets::internet, Sockets::internet_and_unix}) {
    const Filter filter(sockets);
    for (const long call :
         {SYS_open_by_handle_at, SYS_io_uring_setup, SYS_ptrace, SYS_process_vm_readv, SYS_kill, SYS_mount,
          SYS_unshare, SYS_setns, SYS_bpf, SYS_keyctl, SYS_pidfd_getfd})
      EXPECT_EQ(filter(call), refused) << call;
    EXPECT_EQ(filter(SYS_clone, SIGCHLD), refused) << "a new process";
    EXPECT_EQ(filter(SYS_clone3), SECCOMP_RET_ERRNO | ENOSYS);
    EXPECT_EQ(filter(SYS_tgkill, 1), refused) << "a signal to another process";
    EXPECT_EQ(filter(SYS_prlimit64, 1), refused);
    EXPECT_EQ(filter(SYS_socket, AF_NETLINK), refused);
    EXPECT_EQ(filter(SYS_socket, AF_PACKET), refused);
    EXPECT_EQ(filter.of_architecture(AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
#if defined(__x86_64__)
    EXPECT_EQ(filter(SYS_read | 0x40000000), SECCOMP_RET_KILL_PROCESS) << "x32";
    EXPECT_EQ(filter(SYS_fork), refused);
    EXPECT_EQ(filter(SYS_vfork), refused);
#endif
  }
}

TEST(ForeignFilter, SocketsAreThoseOfTheSource) {
  struct Row {
    Sockets sockets;
    std::uint32_t inet;
    std::uint32_t unix_domain;
    std::uint32_t connect;
  };
  for (const Row& row :
       {Row{Sockets::none, refused, refused, refused}, Row{Sockets::internet, allowed, refused, allowed},
        Row{Sockets::internet_and_unix, allowed, allowed, allowed}}) {
    const Filter filter(row.sockets);
    EXPECT_EQ(filter(SYS_socket, AF_INET), row.inet);
    EXPECT_EQ(filter(SYS_socket, AF_INET6), row.inet);
    EXPECT_EQ(filter(SYS_socket, AF_UNIX), row.unix_domain);
    EXPECT_EQ(filter(SYS_connect), row.connect);
  }
}

// --- formats ----------------------------------------------------------------------------------------------

TEST(ForeignFormats, ANameSaysOneFormat) {
  EXPECT_TRUE(name_says("/a/disk.vmdk", "vmdk"));
  EXPECT_TRUE(name_says("/a/DISK.VMDK", "vmdk"));
  EXPECT_TRUE(name_says("disk.vhd", "vpc"));
  EXPECT_TRUE(name_says("disk.avhdx", "vhdx"));
  EXPECT_FALSE(name_says("disk.vhd", "vhdx"));
  EXPECT_FALSE(name_says("disk.vmdk.img", "vmdk"));
  EXPECT_FALSE(name_says("disk", "vmdk"));
  EXPECT_FALSE(name_says("vmdk", "vmdk"));
  for (const std::string_view format : formats) {
    EXPECT_TRUE(reads_format(format));
    EXPECT_FALSE(name_says("disk.raw", format));
    EXPECT_FALSE(name_says("disk.img", format));
  }
  EXPECT_FALSE(reads_format("qcow2"));
  EXPECT_FALSE(reads_format("luks"));
  EXPECT_FALSE(reads_format(""));
}

TEST(ForeignFormats, RawExtentsAreTheGuests) {
  for (const std::string_view name :
       {"a.raw", "disk-flat.vmdk", "DISK-FLAT.VMDK", "disk-f001.vmdk", "disk-F123.vmdk"})
    EXPECT_TRUE(name_says_raw(name)) << name;
  for (const std::string_view name : {"disk.vmdk", "disk-s001.vmdk", "flat.vmdk", "disk-f01.vmdk",
                                      "disk-fabc.vmdk", "f001.vmdk", ".vmdk", "-f001.vmdk", ""})
    EXPECT_FALSE(name_says_raw(name)) << name;
}

}  // namespace
}  // namespace diskferry::foreign
