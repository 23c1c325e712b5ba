// Between vfork and exec the child shares our memory with our other threads: it makes system calls, raw where
// the C library's function would tell all threads (setresuid), and writes to nothing but its own stack and
// what was prepared for it. What it needs is therefore laid out before.
#include "drivers/foreign/confined_start.hpp"

#include "diskferry/assert.hpp"
#include "drivers/foreign/landlock.hpp"
#include "drivers/foreign/syscall_filter.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <mutex>
#include <optional>
#include <sched.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace diskferry::foreign {
namespace {

/// Users that belong to nobody: systemd's table of user ids leaves 1879048192 to 2147483647 unused. Each
/// child has one of its own, so that none can do anything to another.
constexpr uid_t first_free_user = 0x7700'0000;
constexpr uid_t free_users_mask = 0x003f'ffff;  // process ids are below
constexpr uid_t nobody = 65534;

constexpr std::uint64_t stack_bytes = std::uint64_t{2} << 20;  // of each thread; QEMU has up to 64
constexpr std::size_t places_max = 16;
constexpr int signal_last = 64;  // of the kernel's
constexpr std::string_view listen_pid_name = "LISTEN_PID=";
constexpr const char* authorities_folder = "/etc/ssl/certs";
constexpr const char* authorities_file = "/etc/ssl/certs/ca-certificates.crt";

/// What went wrong in the child, through a pipe that exec closes.
struct Failure {
  int error_number;
  std::array<char, 60> step;
};

struct Capabilities {
  std::uint64_t effective = 0;
  bool has(unsigned number) const noexcept { return (effective >> number & 1) != 0; }
  static Capabilities current() noexcept {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) return {};
    return {.effective = data[0].effective | std::uint64_t{data[1].effective} << 32};
  }
};

/// All that the child needs, made by the parent.
struct Plan {
  const ConfinedProgram& program;
  std::vector<char*> argv = {};
  std::vector<char*> envp = {};
  std::string listen_pid = {};
  std::string uid_map = {};
  std::string gid_map = {};
  SyscallFilter filter = {};
  Capabilities ours = {};
  int ruleset = -1;
  int failure = -1;
  pid_t parent = -1;
};

/// The child's side. On its stack; `plan` is the parent's.
class Child {
 public:
  explicit Child(Plan& plan) : plan_(plan), failure_(plan.failure), ruleset_(plan.ruleset) {}

  [[noreturn]] void become() {
    ::setpgid(0, 0);  // Ctrl-C in our terminal is for us
    place_descriptors();
    if (!plan_.program.confinement.authorities.empty()) believe_only();  // before it may write no more
    limit(RLIMIT_DATA, memory_bytes_max);
    limit(RLIMIT_STACK, stack_bytes);
    limit(RLIMIT_NOFILE, descriptors_max);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    drop_rights();
    // After the change of user, which clears it.
    must(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == plan_.parent, "end with its parent");
    must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "give up privileges");
    if (ruleset_ >= 0)
      must(::syscall(SYS_landlock_restrict_self, ruleset_, 0) == 0, "confine it to files (Landlock)");
    filter_calls();
    std::to_chars(plan_.listen_pid.data() + listen_pid_name.size(),
                  plan_.listen_pid.data() + plan_.listen_pid.size(), ::getpid());
    forget_handlers();
    sigset_t none{};
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(plan_.program.path.c_str(), plan_.argv.data(), plan_.envp.data());
    give_up("run it");
  }

 private:
  [[noreturn]] void give_up(std::string_view step) const {
    Failure failure{.error_number = errno, .step = {}};
    std::copy_n(step.begin(), std::min(step.size(), failure.step.size() - 1), failure.step.begin());
    (void)!::write(failure_, &failure, sizeof failure);
    ::_exit(127);
  }
  void must(bool is_done, std::string_view step) const {
    if (!is_done) give_up(step);
  }

  void place_descriptors() {
    const auto& passed = plan_.program.passed;
    const std::size_t count = first_passed + passed.size();
    const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    // First above all places, so that none is overwritten before it was used. A failure of the first one is
    // told through what it was to replace.
    failure_ = above(failure_);
    if (ruleset_ >= 0) ruleset_ = above(ruleset_);
    std::array<int, places_max> from{};
    for (std::size_t place = 0; place < count; ++place) {
      const int fd = place >= first_passed    ? passed[place - first_passed]
                     : place == STDERR_FILENO ? plan_.program.errors
                                              : nowhere;
      from[place] = above(fd);
    }
    for (std::size_t place = 0; place < count; ++place)
      must(::dup2(from[place], static_cast<int>(place)) >= 0, "hand over descriptors");
    hand_over_nothing_from(count);
  }

  int above(int fd) const {
    const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(places_max));
    must(copy >= 0, "hand over descriptors");
    return copy;
  }

  void hand_over_nothing_from(std::size_t first) const {
    if (::syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
    must(errno == EINVAL || errno == ENOSYS, "hand over nothing else");  // before Linux 5.11: one by one
    rlimit open_files{};
    must(::getrlimit(RLIMIT_NOFILE, &open_files) == 0, "read its limits");
    for (rlim_t fd = first; fd < open_files.rlim_cur; ++fd)
      (void)::fcntl(static_cast<int>(fd), F_SETFD, FD_CLOEXEC);  // most are not open
  }

  /// exec does it as well, but signals are let in before that, and our handlers would run in our memory.
  void forget_handlers() const {
    // The kernel's own struct sigaction, whose first field is 0 for SIG_DFL and 1 for SIG_IGN. The C
    // library's function keeps two signals for itself and may take a lock.
    constexpr std::array<std::uint64_t, 4> by_default{};
    constexpr std::array<std::uint64_t, 4> ignored{1};
    for (int number = 1; number <= signal_last; ++number) {
      // A library that tries to write a file is told that it cannot (RLIMIT_FSIZE), and not ended.
      const auto& action = number == SIGXFSZ ? ignored : by_default;
      (void)::syscall(SYS_rt_sigaction, number, action.data(), nullptr, sizeof(std::uint64_t));
    }
  }

  void limit(__rlimit_resource_t what, std::uint64_t value) const {
    rlimit current{};
    must(::getrlimit(what, &current) == 0, "read its limits");
    const rlim_t most = std::min<rlim_t>(value, current.rlim_max);
    const rlimit wanted{.rlim_cur = most, .rlim_max = most};
    must(::setrlimit(what, &wanted) == 0, "set its limits");
  }

  void put_into(const char* path, int flags, std::string_view text) const {
    const int fd = ::open(path, flags | O_WRONLY | O_CLOEXEC, 0444);
    must(fd >= 0, "write what it needs");
    while (!text.empty()) {
      const ssize_t done = ::write(fd, text.data(), text.size());
      must(done > 0, "write what it needs");
      text.remove_prefix(static_cast<std::size_t>(done));
    }
    ::close(fd);
  }

  /// Curl has no option for the authorities in QEMU, so they are put where it looks, in a view of the file
  /// system that is the child's own.
  void believe_only() const {
    if (::unshare(CLONE_NEWNS) != 0) {
      must(::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0, "make it a namespace for ca-file=");
      put_into("/proc/self/setgroups", 0, "deny");
      put_into("/proc/self/uid_map", 0, plan_.uid_map);
      put_into("/proc/self/gid_map", 0, plan_.gid_map);
    }
    must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "make its namespace private");
    must(::mount("tmpfs", authorities_folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") == 0,
         "put ca-file= into /etc/ssl/certs");
    put_into(authorities_file, O_CREAT | O_EXCL, plan_.program.confinement.authorities);
    if (ruleset_ < 0) return;
    // What is mounted hides the folder that the rules name.
    must(allow_reading_below(ruleset_, authorities_folder), "let it read ca-file=");
  }

  void drop_rights() const {
    const ChildRights rights = child_rights(plan_.program.confinement.rights, plan_.ours.effective);
    if (plan_.ours.has(CAP_SETPCAP))
      must(::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                          SECBIT_NO_SETUID_FIXUP_LOCKED) == 0,
           "take root's powers from it");
    if (rights.changes_user) change_user();
    const std::uint32_t kept = rights.can_read_all ? 1U << CAP_DAC_READ_SEARCH : 0;
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    data[0] = {.effective = kept, .permitted = kept, .inheritable = kept};
    must(::syscall(SYS_capset, &header, data.data()) == 0, "take root's capabilities from it");
    if (rights.can_read_all)
      must(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0) == 0, "let it read");
  }

  /// In a container there may be few users; where there is none but ours, it stays without capabilities.
  void change_user() const {
    const uid_t own = first_free_user | (static_cast<uid_t>(::getpid()) & free_users_mask);
    for (const uid_t user : {own, nobody}) {
      if (::syscall(SYS_setresgid, user, user, user) != 0) {
        must(errno == EINVAL, "change its group");
        continue;
      }
      must(::syscall(SYS_setgroups, 0, nullptr) == 0, "take its groups from it");
      must(::syscall(SYS_setresuid, user, user, user) == 0, "change its user");
      return;
    }
  }

  void filter_calls() const {
    auto& program = plan_.filter.program;
    if (program.empty()) return;
    for (const std::size_t at : plan_.filter.own_pid_at)
      program[at].k = static_cast<std::uint32_t>(::getpid());
    const sock_fprog filter{.len = static_cast<unsigned short>(program.size()), .filter = program.data()};
    must(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "filter its system calls (seccomp)");
  }

  Plan& plan_;
  int failure_;
  int ruleset_;
};

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));  // as execve wants it
  return all;
}

void lay_out(Plan& plan) {
  plan.argv = pointers(plan.program.arguments);
  plan.argv.push_back(nullptr);
  plan.envp = pointers(plan.program.environment);
  plan.listen_pid = std::string(listen_pid_name) + std::string(20, '\0');
  plan.envp.push_back(plan.listen_pid.data());
  plan.envp.push_back(nullptr);
  plan.uid_map = fmt::format("{0} {0} 1", ::geteuid());
  plan.gid_map = fmt::format("{0} {0} 1", ::getegid());
  plan.ours = Capabilities::current();
  plan.parent = ::getpid();
}

/// The child until exec. Errors: none; -1: errno says why.
pid_t vfork_child(Plan& plan) {
  // With our memory the child shares whether that may be looked at and dumped: its change of user takes this
  // from us, too. One at a time, so that each sees what it was before.
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  const bool is_dumpable = ::prctl(PR_GET_DUMPABLE) == 1;
  // No handler of ours may run in the child.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  // Not fork(): it would copy the page tables of all our memory.
  const pid_t pid = ::vfork();  // NOLINT(bugprone-unsafe-functions): posix_spawn() cannot confine the child
  if (pid == 0) Child(plan).become();
  const int failed = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (is_dumpable) (void)::prctl(PR_SET_DUMPABLE, 1);
  errno = failed;
  return pid;
}

Result<pid_t> start(Plan& plan, int failure_end) {
  const pid_t pid = vfork_child(plan);
  const int failed = errno;
  ::close(plan.failure);
  if (pid < 0) return unexpected(errno_error(failed, "start", plan.program.path));
  Failure failure{};
  if (::read(failure_end, &failure, sizeof failure) != sizeof failure) return pid;
  (void)::waitpid(pid, nullptr, 0);
  return unexpected(errno_error(failure.error_number, "start", plan.program.path)
                        .why(fmt::format("it could not be confined or run: {}", failure.step.data())));
}

}  // namespace

Result<pid_t> start_confined(const ConfinedProgram& program) {
  DISKFERRY_ASSERT(first_passed + program.passed.size() <= places_max, "too many descriptors for a child");
  Plan plan{.program = program};
  lay_out(plan);
  plan.filter = make_filter(program.confinement.sockets);
  if (plan.filter.program.empty() && !program.allow_unconfined)
    return unexpected(fail(ErrorKind::unsupported, "start", program.path)
                          .why("on this kind of processor its system calls cannot be filtered")
                          .remedy("allow that with DISKFERRY_ALLOW_UNCONFINED=1 in the environment"));
  DISKFERRY_TRY(const std::optional<int> ruleset, make_ruleset(program.confinement, program.path));
  if (!ruleset && !program.allow_unconfined)
    return unexpected(fail(ErrorKind::unsupported, "confine qemu-nbd to files", program.path)
                          .why("this kernel has no Landlock (Linux 5.13, in the list of lsm=)")
                          .remedy("run where it has, or allow that with DISKFERRY_ALLOW_UNCONFINED=1 in the "
                                  "environment if you trust whoever made the image"));
  plan.ruleset = ruleset.value_or(-1);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    const int failed = errno;
    if (ruleset) ::close(*ruleset);
    return unexpected(errno_error(failed, "start", program.path));
  }
  plan.failure = ends[1];
  auto pid = start(plan, ends[0]);
  ::close(ends[0]);
  if (ruleset) ::close(*ruleset);
  return pid;
}

}  // namespace diskferry::foreign
