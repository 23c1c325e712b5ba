// QemuNbd: a confined qemu-nbd that is kept running. It serves one image, read-only, at a socket that only
// this process can reach. A thread of its own starts it, reads what it says, waits for its end, and starts it
// again where that makes sense; so the kernel ends it with us (confined_start.hpp).
//
// It keeps no state: what reads through it can send every request again to the next one. But an image that
// crashed it once will do so again, so after a crash it is started once more and no further.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/sync.hpp"
#include "drivers/foreign/confined_start.hpp"
#include "drivers/foreign/listener.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace diskferry::foreign {

struct QemuNbdOptions {
  std::string name = {};                  ///< the image, for messages
  std::vector<std::string> objects = {};  ///< values of --object
  std::string image = {};                 ///< value of --image-opts
  std::string path = {};                  ///< the file in there; empty: a server, or another child
  std::vector<std::string> environment = {};
  Confinement confinement = {};
  /// How long it is started again and again while it cannot open the image, because a server is away.
  Duration keep_trying{};
  /// What the child gets as descriptors 4, 5, ...: asked before each start, on the supervising thread.
  std::function<Result<std::vector<FileDescriptor>>()> passed = {};
};

/// The first of QemuNbdOptions::passed, in the child: the one before is the listening socket.
inline constexpr int first_of_ours = first_passed + 1;

/// The program: $DISKFERRY_QEMU_NBD, or qemu-nbd in PATH. Errors: unsupported, naming Debian's package.
Result<std::string> find_qemu_nbd();

/// Thread: any.
class QemuNbd {
 public:
  /// Blocks for some milliseconds, until the program runs; whether it can open the image shows when somebody
  /// connects. Errors: as start_confined() and find_qemu_nbd().
  static Result<std::unique_ptr<QemuNbd>> start(QemuNbdOptions options);
  ~QemuNbd();
  QemuNbd(const QemuNbd&) = delete;
  QemuNbd& operator=(const QemuNbd&) = delete;

  std::string socket_path() const { return listener_.path(); }
  Result<FileDescriptor> connect() const { return connect_to(listener_); }
  /// -1 between two of them.
  pid_t pid() const;
  /// It has opened the image: from now on its end is a crash.
  void opened();
  /// What it serves was read.
  void note_success() noexcept;
  /// Ends it, so that the next one begins from nothing; not counted as a crash, but as a sign that what it
  /// reads from does not answer.
  void ask_restart();
  /// Called on the supervising thread when another one has taken over.
  void on_restart(std::function<void()> call);
  /// Called on the supervising thread when there will be no other.
  void on_end(std::function<void()> call);
  /// Why there is none any more; nullopt: there is.
  std::optional<Error> death() const;
  /// The last that it said; empty: nothing.
  std::string words() const;
  /// Ends it for good and waits until it is gone. Cancel: no effect.
  Task<void> stop();

 private:
  QemuNbd(QemuNbdOptions options, std::string program, Listener listener);
  void supervise(std::promise<Result<void>>& first);
  Result<void> start_child();
  int wait_for_child();
  /// Whether to start another one, after `status`; waits before that where it has to.
  bool may_restart(int status);
  void end(Error error);
  std::function<void()> registered(const std::function<void()>& call) const;
  void kill_child();
  /// Since the first failure that no success followed; 0: there is none.
  Duration time_away() const noexcept;
  void note_failure() noexcept;

  const QemuNbdOptions options_;
  const std::string program_;
  Listener listener_;
  AsyncEvent ended_;
  std::atomic<std::int64_t> away_since_ns_ = 0;  // 0: nothing has failed since it was read

  mutable std::mutex guard_;  // of all below
  std::condition_variable stopping_;
  std::function<void()> on_restart_;
  std::function<void()> on_end_;
  pid_t pid_ = -1;
  FileDescriptor errors_;
  std::string said_;
  bool is_open_ = false;
  bool is_stopping_ = false;
  bool is_restart_asked_ = false;
  unsigned crashes_ = 0;
  std::optional<Error> death_;
  std::thread thread_;
};

}  // namespace diskferry::foreign
