#include "drivers/support/detached_thread.hpp"

#include <csignal>
#include <thread>

namespace diskferry {
namespace {

/// A new thread has the signal mask of the one that starts it.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~AllSignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

void start_detached(std::function<void()> run) {
  const AllSignalsBlocked blocked;
  std::thread(std::move(run)).detach();
}

}  // namespace diskferry
