// A list of what is refused, with EPERM, rather than of what is allowed: the C library and QEMU use new calls
// with each version, and a list of those breaks with it.
#include "drivers/foreign/syscall_filter.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

namespace diskferry::foreign {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t own_architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t own_architecture = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t own_architecture = 0;
#endif
constexpr std::uint32_t x32_bit = 0x40000000;  // x86: the same calls by other numbers

constexpr std::uint32_t refuse = SECCOMP_RET_ERRNO | EPERM;

constexpr std::array refused_calls{
    // files past Landlock, and requests past this filter
    SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register,
    // other processes
    SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_open, SYS_pidfd_send_signal,
    SYS_pidfd_getfd, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_process_madvise,
    SYS_setpriority, SYS_ioprio_set,
    // the system
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, SYS_open_tree, SYS_move_mount,
    SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_bpf, SYS_perf_event_open,
    SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_kexec_load, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_syslog, SYS_acct,
    SYS_quotactl, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname,
    SYS_setdomainname, SYS_personality, SYS_fanotify_init, SYS_vhangup, SYS_mbind, SYS_migrate_pages,
    SYS_move_pages};

class Writer {
 public:
  void load(std::size_t field) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(field)); }
  void answer(std::uint32_t what) { add(BPF_RET | BPF_K, what); }
  /// Goes on behind the next `skipped` instructions where the loaded value is `value`, or is not.
  void skip_if(std::uint32_t value, std::uint8_t skipped) {
    add(BPF_JMP | BPF_JEQ | BPF_K, value, skipped, 0);
  }
  void skip_unless(std::uint32_t value, std::uint8_t skipped) {
    add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped);
  }
  void skip_if_bits(std::uint32_t bits, std::uint8_t skipped) {
    add(BPF_JMP | BPF_JSET | BPF_K, bits, skipped, 0);
  }
  void skip_unless_bits(std::uint32_t bits, std::uint8_t skipped) {
    add(BPF_JMP | BPF_JSET | BPF_K, bits, 0, skipped);
  }
  void refuse_call(long number) {
    skip_unless(static_cast<std::uint32_t>(number), 1);
    answer(refuse);
  }
  std::size_t size() const noexcept { return program_.size(); }
  std::vector<sock_filter> take() { return std::move(program_); }

 private:
  void add(std::uint16_t code, std::uint32_t value, std::uint8_t if_true = 0, std::uint8_t if_false = 0) {
    program_.push_back({.code = code, .jt = if_true, .jf = if_false, .k = value});
  }
  std::vector<sock_filter> program_;
};

constexpr std::size_t number_field = offsetof(seccomp_data, nr);
/// The low half of an argument: both architectures are little-endian.
constexpr std::size_t argument(unsigned index) {
  return offsetof(seccomp_data, args) + index * sizeof(std::uint64_t);
}

void filter_sockets(Writer& filter, Sockets sockets) {
  if (sockets == Sockets::none) {
    for (const long call : {SYS_socket, SYS_connect, SYS_bind}) filter.refuse_call(call);
    return;
  }
  filter.skip_unless(SYS_socket, sockets == Sockets::internet ? 5 : 6);
  filter.load(argument(0));
  std::uint8_t families = sockets == Sockets::internet ? 2 : 3;
  if (sockets == Sockets::internet_and_unix) filter.skip_if(AF_UNIX, families--);
  filter.skip_if(AF_INET, families--);
  filter.skip_if(AF_INET6, families);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
}

}  // namespace

SyscallFilter make_filter(Sockets sockets) {
  SyscallFilter made;
  if (own_architecture == 0) return made;
  Writer filter;
  filter.load(offsetof(seccomp_data, arch));
  filter.skip_if(own_architecture, 1);
  filter.answer(SECCOMP_RET_KILL_PROCESS);
  filter.load(number_field);
#if defined(__x86_64__)
  filter.skip_unless_bits(x32_bit, 1);
  filter.answer(SECCOMP_RET_KILL_PROCESS);
#endif
  for (const long call : refused_calls) filter.refuse_call(call);
  // New threads, but no new processes. Behind a pointer, clone3's flags are out of sight: the C library then
  // takes clone.
  filter.skip_unless(SYS_clone3, 1);
  filter.answer(SECCOMP_RET_ERRNO | ENOSYS);
#if defined(__x86_64__)
  filter.refuse_call(SYS_fork);
  filter.refuse_call(SYS_vfork);
#endif
  filter.skip_unless(SYS_clone, 4);
  filter.load(argument(0));
  filter.skip_if_bits(CLONE_THREAD, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
  // Signals to itself: abort().
  filter.skip_unless(SYS_tgkill, 4);
  filter.load(argument(0));
  made.own_pid_at.push_back(filter.size());
  filter.skip_if(0, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
  // Limits of itself only.
  filter.skip_unless(SYS_prlimit64, 4);
  filter.load(argument(0));
  filter.skip_if(0, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
  filter_sockets(filter, sockets);
  filter.answer(SECCOMP_RET_ALLOW);
  made.program = filter.take();
  return made;
}

}  // namespace diskferry::foreign
