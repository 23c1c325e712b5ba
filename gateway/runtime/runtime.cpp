// Threads and their end. Reactors stop only after the last task has been joined.
#include "gateway/runtime/runtime.hpp"

#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <csignal>
#include <future>
#include <thread>
#include <vector>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

namespace diskferry {
namespace asio = boost::asio;

namespace {
struct Reactor {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  std::thread thread;
};
}  // namespace

struct Runtime::State {
  explicit State(const RuntimeOptions& options)
      : reactors(options.reactors != 0 ? options.reactors
                                       : std::clamp(std::thread::hardware_concurrency(), 1u, 8u)),
        buffers(options.buffer_bytes),
        blocking_pool(options.blocking_threads) {
    for (auto& reactor : reactors) {
      reactor = std::make_unique<Reactor>();
      executors.emplace_back(reactor->context.get_executor());
    }
    // A write over the limit on file sizes is then an error (EFBIG) of that write and not our end.
    std::signal(SIGXFSZ, SIG_IGN);
    context = std::make_unique<DriverContext>(
        DriverContext{executors, blocking_pool, buffers, clock, options.notes_folder});
    for (auto& reactor : reactors) reactor->thread = std::thread([&reactor] { reactor->context.run(); });
  }
  ~State() {
    for (auto& reactor : reactors) reactor->work.reset();
    for (auto& reactor : reactors) reactor->thread.join();
  }

  std::vector<std::unique_ptr<Reactor>> reactors;
  std::vector<Executor> executors;
  BufferPool buffers;
  BlockingPool blocking_pool;
  SystemClock clock;
  std::unique_ptr<DriverContext> context;
};

Runtime::Runtime(RuntimeOptions options) : state_(std::make_unique<State>(options)) {}
Runtime::~Runtime() = default;

DriverContext& Runtime::context() noexcept {
  return *state_->context;
}
Executor Runtime::reactor(std::size_t index) const {
  return state_->executors[index % state_->executors.size()];
}
std::size_t Runtime::reactor_count() const noexcept {
  return state_->executors.size();
}

void Runtime::run_blocking(Task<Result<void>> task) {
  // Shared, because set_value() may still touch the promise when wait() has returned.
  auto done = std::make_shared<std::promise<void>>();
  asio::co_spawn(reactor(0), std::move(task),
                 [done](std::exception_ptr, Result<void>) { done->set_value(); });
  done->get_future().wait();
}

namespace {
struct SignalledRun {
  explicit SignalledRun(const Executor& executor) : signals(executor, SIGINT, SIGTERM) {}
  std::promise<void> done;
  asio::cancellation_signal stop;
  asio::signal_set signals;
};
}  // namespace

void Runtime::run_blocking_with_signals(Task<Result<void>> task) {
  auto run = std::make_shared<SignalledRun>(reactor(0));
  run->signals.async_wait([run](const boost::system::error_code& error, int) {
    if (error) return;
    run->signals.clear();  // the system's own action again: a second signal ends the process
    run->stop.emit(asio::cancellation_type::terminal);
  });
  asio::co_spawn(reactor(0), std::move(task),
                 asio::bind_cancellation_slot(run->stop.slot(), [run](std::exception_ptr, Result<void>) {
                   run->signals.cancel();
                   run->done.set_value();
                 }));
  run->done.get_future().wait();
}

}  // namespace diskferry
