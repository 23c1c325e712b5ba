// A list of what is refused, with EPERM, rather than of what is allowed: the C library and QEMU use new calls
// with each version, and a list of those breaks with it.
#include "drivers/foreign/syscall_filter.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
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

// Younger than Debian 12's headers; the same numbers everywhere.
constexpr int call_fchmodat2 = 452;
constexpr int call_setxattrat = 463;
constexpr int call_removexattrat = 466;
constexpr int call_file_setattr = 469;

constexpr std::array refused_calls{
    // files past Landlock, and requests past this filter
    SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register,
    // changes to files that are no writing
    SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_fchmod, SYS_fchmodat, call_fchmodat2, SYS_fchown,
    SYS_fchownat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, call_setxattrat, SYS_removexattr,
    SYS_lremovexattr, SYS_fremovexattr, call_removexattrat, call_file_setattr, SYS_utimensat,
    // memory and messages shared with others
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_semget,
    SYS_semop, SYS_semtimedop, SYS_semctl, SYS_mq_open, SYS_mq_unlink,
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
#if defined(__x86_64__)
/// What newer architectures have only in a later form.
constexpr std::array refused_old_calls{SYS_creat,  SYS_chmod,     SYS_chown, SYS_lchown, SYS_utime,
                                       SYS_utimes, SYS_futimesat, SYS_fork,  SYS_vfork};
#endif

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

/// A call is refused where its argument has one of these bits.
void refuse_bits(Writer& filter, long call, unsigned index, std::uint32_t bits) {
  filter.skip_unless(static_cast<std::uint32_t>(call), 4);
  filter.load(argument(index));
  filter.skip_unless_bits(bits, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
}
/// A call is refused where its first argument is `value`.
void refuse_value(Writer& filter, long call, std::uint32_t value) {
  filter.skip_unless(static_cast<std::uint32_t>(call), 4);
  filter.load(argument(0));
  filter.skip_unless(value, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
}
/// A call is refused where its first argument is not `value`. Returns the instruction that compares with it.
std::size_t refuse_other_values(Writer& filter, long call, std::uint32_t value) {
  filter.skip_unless(static_cast<std::uint32_t>(call), 4);
  filter.load(argument(0));
  const std::size_t at = filter.size();
  filter.skip_if(value, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
  return at;
}
/// What the C library has another call for.
void say_unknown(Writer& filter, long call) {
  filter.skip_unless(static_cast<std::uint32_t>(call), 1);
  filter.answer(SECCOMP_RET_ERRNO | ENOSYS);
}

void filter_opening(Writer& filter) {
  // Before Linux 6.2 Landlock lets a file that may be read be emptied in this way.
#if defined(__x86_64__)
  refuse_bits(filter, SYS_open, 1, O_TRUNC);
#endif
  refuse_bits(filter, SYS_openat, 2, O_TRUNC);
  say_unknown(filter, SYS_openat2);  // its flags are out of sight, behind a pointer
}

/// New threads, but no new processes.
void filter_processes(Writer& filter) {
  say_unknown(filter, SYS_clone3);  // its flags are out of sight, too
  filter.skip_unless(SYS_clone, 4);
  filter.load(argument(0));
  filter.skip_if_bits(CLONE_THREAD, 1);
  filter.answer(refuse);
  filter.answer(SECCOMP_RET_ALLOW);
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
#if defined(__x86_64__)
  for (const long call : refused_old_calls) filter.refuse_call(call);
#endif
  filter_opening(filter);
  filter_processes(filter);
  refuse_value(filter, SYS_prctl, PR_SET_PDEATHSIG);                      // it ends with us
  made.own_pid_at.push_back(refuse_other_values(filter, SYS_tgkill, 0));  // signals to itself: abort()
  refuse_other_values(filter, SYS_prlimit64, 0);                          // limits of itself
  filter_sockets(filter, sockets);
  filter.answer(SECCOMP_RET_ALLOW);
  made.program = filter.take();
  return made;
}

}  // namespace diskferry::foreign
