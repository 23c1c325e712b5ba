// The pure parts of drivers/foreign: what QEMU is told, what it said, when a child is started again, whose
// rights it has and which system calls it gets; and which names and contents make a format
// (drivers/image/format).
#include "drivers/foreign/confinement.hpp"
#include "drivers/foreign/endpoint.hpp"
#include "drivers/foreign/formats.hpp"
#include "drivers/foreign/last_words.hpp"
#include "drivers/foreign/node_options.hpp"
#include "drivers/foreign/restart_rule.hpp"
#include "drivers/foreign/syscall_filter.hpp"
#include "drivers/image/format.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <map>
#include <sys/prctl.h>
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
      {"http://host/x?cookie-file=/c", "https"},
      {"https://host/x?ca-file=/c&tls-verify-peer=false", "exclude"},
      {"https://host/x?connections=0", "connections"},
      {"https://host/x?stall-timeout=0", "more than 0"},
      {"https://host/x?stall-timeout=10001", "10000"},
      {"ssh://host/x?agent=maybe", "agent"},
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

TEST(ForeignOptions, TheAgentIsAskedWhereThatIsSaid) {
  const auto uses_agent = [](const std::string& uri) {
    return parse_endpoint(*ImageUri::parse(uri))->uses_agent;
  };
  EXPECT_FALSE(uses_agent("ssh://host/x"));
  EXPECT_FALSE(uses_agent("ssh://host/x?agent=no"));
  EXPECT_TRUE(uses_agent("ssh://host/x?agent=true"));
}

TEST(ForeignOptions, AContentHasAnIdentity) {
  const auto identity = [](const std::string& uri, std::uint64_t size, std::string_view ends) {
    return content_identity(*parse_endpoint(*ImageUri::parse(uri)), size, std::as_bytes(std::span(ends)));
  };
  const std::string known = identity("https://host/x", 1024, "ab");
  EXPECT_EQ(known, identity("https://alice@host:443/x?connections=2", 1024, "ab")) << "how it is read";
  EXPECT_NE(known, identity("https://host/x", 1536, "ab"));
  EXPECT_NE(known, identity("https://host/x", 1024, "ac"));
  EXPECT_NE(known, identity("https://host/y", 1024, "ab"));
  EXPECT_NE(known, identity("https://other/x", 1024, "ab"));
  EXPECT_EQ(known.find("alice"), std::string::npos);
}

// --- what it said -----------------------------------------------------------------------------------------

Error after_exit(std::string_view said, bool was_open = false) {
  return error_of({.wait_status = 1 << 8, .was_open = was_open, .said = said, .path = "/images/disk.vmdk"},
                  "disk.vmdk");
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
      // Names that look like a reason.
      {opening + "Could not open '/No such file or directory': Permission denied\n", ErrorKind::permission},
      {opening + "Could not open '/a': Permission denied': No such file or directory\n",
       ErrorKind::not_found},
      {opening + "Unsupported image type 'Permission denied'\n", ErrorKind::unsupported},
      {opening + "failed to open remote file '/certificate': SFTP server: No such file\n",
       ErrorKind::not_found},
      {opening + "Could not open '/" + std::string(500, 'x') + "': No such file or directory\n",
       ErrorKind::not_found},
  };
  for (const Row& row : rows) {
    const Error error = after_exit(row.said);
    EXPECT_EQ(error.kind(), row.kind) << row.said << ": " << error.message();
    EXPECT_EQ(error.message().find("driver="), std::string::npos) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
  }
  EXPECT_EQ(after_exit("it fell over\n", true).kind(), ErrorKind::io);
}

/// Whoever made the image must not talk the operator into opening a folder where that is not what is wrong.
TEST(ForeignErrors, ARemedyIsForWhatWasRefused) {
  const auto remedy = [](std::string_view path, const std::string& said) {
    return error_of({.wait_status = 1 << 8, .said = said, .path = path}, "disk.vmdk").remedy();
  };
  const std::string opening = "qemu-nbd: Failed to blk_new_open 'driver=vmdk': ";
  const std::string allow = "--allow-backing";
  for (const char* reason : {"Permission denied", "Operation not permitted"}) {
    const auto refused = [&](const std::string& name) {
      return opening + "Could not open '" + name + "': " + reason;
    };
    EXPECT_NE(remedy("/i/disk.vmdk", refused("/etc/x")).find(allow), std::string::npos);
    EXPECT_EQ(remedy("/i/disk.vmdk", refused("/i/disk.vmdk")).find(allow), std::string::npos);
    EXPECT_NE(remedy("/i/disk.vmdk", refused("/i/disk.vmdk")).find("mode"), std::string::npos);
    EXPECT_NE(remedy("/i/a': b.vmdk", refused("/i/a': b.vmdk")).find("mode"), std::string::npos);
    EXPECT_EQ(remedy("/i/disk.vmdk", opening + "it failed: " + reason).find(allow), std::string::npos);
    EXPECT_EQ(remedy("", refused("/etc/x")).find(allow), std::string::npos) << "an image on a server";
    EXPECT_NE(remedy("", opening + "SFTP server: " + reason).find("server"), std::string::npos);
  }
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

// --- when it ended ----------------------------------------------------------------------------------------

TEST(ForeignRestart, FollowsFromTheEnd) {
  using std::chrono::seconds;
  struct Row {
    const char* what;
    ChildEnd end;
    AfterEnd next;
  };
  const std::vector<Row> rows{
      {"it never opened the image", {.by_signal = true}, AfterEnd::give_up},
      {"a first crash", {.was_open = true, .by_signal = true}, AfterEnd::restart_after_crash},
      {"a second one", {.was_open = true, .by_signal = true, .crashes = 1}, AfterEnd::give_up},
      {"a file that it does not read any more", {.was_open = true}, AfterEnd::restart_after_crash},
      {"and again", {.was_open = true, .crashes = 1}, AfterEnd::give_up},
      {"what it reads through began anew",
       {.was_open = true, .was_asked = true, .by_signal = true, .crashes = 1},
       AfterEnd::restart},
      {"a crash while the server is away",
       {.was_open = true, .by_signal = true, .away = seconds(9), .keep_trying = seconds(8)},
       AfterEnd::restart_after_crash},
      {"a server that is away",
       {.was_open = true, .crashes = 1, .away = seconds(8), .keep_trying = seconds(8)},
       AfterEnd::restart_after_pause},
      {"for too long", {.was_open = true, .away = seconds(9), .keep_trying = seconds(8)}, AfterEnd::give_up},
      {"a server that does not answer",
       {.was_open = true,
        .was_asked = true,
        .by_signal = true,
        .away = seconds(1),
        .keep_trying = seconds(8)},
       AfterEnd::restart_after_pause},
      {"for too long",
       {.was_open = true,
        .was_asked = true,
        .by_signal = true,
        .away = seconds(9),
        .keep_trying = seconds(8)},
       AfterEnd::unanswered},
  };
  for (const Row& row : rows) EXPECT_EQ(after_end(row.end), row.next) << row.what;
}

// --- whose rights it has ----------------------------------------------------------------------------------

TEST(ForeignRights, AreThoseThatRootCanGive) {
  const auto some = [](std::initializer_list<unsigned> numbers) {
    std::uint64_t all = 0;
    for (const unsigned number : numbers) all |= std::uint64_t{1} << number;
    return all;
  };
  constexpr std::uint64_t root = ~std::uint64_t{0};
  const std::uint64_t docker = some({CAP_DAC_OVERRIDE, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL});
  struct Row {
    const char* what;
    Rights wanted;
    std::uint64_t has;
    bool changes_user;
    bool can_read_all;
  };
  const std::vector<Row> rows{
      {"root", Rights::reader, root, true, true},
      {"root, for a stranger", Rights::stranger, root, true, false},
      {"root, for itself", Rights::own, root, false, false},
      {"a user", Rights::reader, 0, false, false},
      {"a user, for a stranger", Rights::stranger, 0, false, false},
      {"a container", Rights::reader, docker, false, false},
      {"a container, for a stranger", Rights::stranger, docker, true, false},
      {"a container that may read", Rights::reader, docker | some({CAP_DAC_READ_SEARCH}), false, true},
      {"and look at others", Rights::reader, docker | some({CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE}), true,
       true},
      {"one that may change no users", Rights::reader, some({CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE}), false,
       true},
  };
  for (const Row& row : rows) {
    const ChildRights rights = child_rights(row.wanted, row.has);
    EXPECT_EQ(rights.changes_user, row.changes_user) << row.what;
    EXPECT_EQ(rights.can_read_all, row.can_read_all) << row.what;
  }
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
  std::uint32_t operator()(long call, std::uint64_t first = 0, std::uint64_t second = 0,
                           std::uint64_t third = 0) const {
    seccomp_data data{};
    data.nr = static_cast<int>(call);
#if defined(__x86_64__)
    data.arch = AUDIT_ARCH_X86_64;
#else
    data.arch = AUDIT_ARCH_AARCH64;
#endif
    data.args[0] = first;
    data.args[1] = second;
    data.args[2] = third;
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
    EXPECT_EQ(filter(SYS_openat, 3, 0, O_RDONLY | O_CLOEXEC), allowed);
    EXPECT_EQ(filter(SYS_prctl, PR_SET_NAME), allowed);
  }
}

TEST(ForeignFilter, WhatReachesOutIsRefused) {
  for (const Sockets sockets : {Sockets::none, Sockets::internet, Sockets::internet_and_unix}) {
    const Filter filter(sockets);
    for (const long call : {SYS_open_by_handle_at,
                            SYS_io_uring_setup,
                            SYS_ptrace,
                            SYS_process_vm_readv,
                            SYS_kill,
                            SYS_mount,
                            SYS_unshare,
                            SYS_setns,
                            SYS_bpf,
                            SYS_keyctl,
                            SYS_pidfd_getfd,
                            SYS_truncate,
                            SYS_ftruncate,
                            SYS_fallocate,
                            SYS_fchmod,
                            SYS_fchmodat,
                            452 /* fchmodat2 */,
                            SYS_fchown,
                            SYS_fchownat,
                            SYS_setxattr,
                            SYS_fremovexattr,
                            463 /* setxattrat */,
                            SYS_utimensat,
                            SYS_shmget,
                            SYS_shmat,
                            SYS_msgget,
                            SYS_semget,
                            SYS_mq_open})
      EXPECT_EQ(filter(call), refused) << call;
    EXPECT_EQ(filter(SYS_openat, 3, 0, O_RDONLY | O_TRUNC), refused) << "emptying what may be read";
    EXPECT_EQ(filter(SYS_openat2), SECCOMP_RET_ERRNO | ENOSYS);
    EXPECT_EQ(filter(SYS_prctl, PR_SET_PDEATHSIG), refused) << "outliving us";
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
    for (const long call :
         {SYS_creat, SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat})
      EXPECT_EQ(filter(call), refused) << call;
    EXPECT_EQ(filter(SYS_open, 0, O_RDONLY), allowed);
    EXPECT_EQ(filter(SYS_open, 0, O_RDONLY | O_TRUNC), refused);
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

TEST(ForeignFormats, NoRawDiskGetsTheNameOfAnotherFormat) {
  for (const std::string_view ending :
       {".vmdk", ".vhdx", ".avhdx", ".vhd", ".avhd", ".vpc", ".vdi", ".qed", ".hdd", ".hds", ".parallels",
        ".qcow", ".qcow2", ".dmg", ".bochs", ".cloop", ".ova"})
    EXPECT_EQ(ending_of_format("/a/disk" + std::string(ending)), ending);
  EXPECT_EQ(ending_of_format("vm.VMDK"), ".vmdk");
  EXPECT_EQ(ending_of_format("vm.Qcow2"), ".qcow2");
  for (const std::string_view name : {"disk", "disk.raw", "disk.img", "vmdk", ".vmdk", "disk.vmdk.img", ""})
    EXPECT_EQ(ending_of_format(name), "") << name;
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
