// A world of one thread in which a seed decides the order of everything: what is sent to a disk waits until
// the schedule lets it be done, and time passes only when the schedule says so. The same seed gives the same
// run.
#pragma once

#include "diskferry/driver.hpp"
#include "drivers/support/blocking_pool.hpp"

#include <functional>
#include <list>
#include <mutex>
#include <random>
#include <string>

#include <boost/asio/io_context.hpp>

namespace diskferry::sim {

class World {
 public:
  explicit World(std::uint64_t seed);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  DriverContext& context() { return context_; }
  Executor executor() { return executors_[0]; }
  FakeClock& clock() { return clock_; }

  std::uint64_t random(std::uint64_t below) { return random_() % below; }
  bool one_in(std::uint64_t count) { return random(count) == 0; }

  /// Waits for its turn. `may_go` false: not now (a disk that hangs). False: it was cancelled.
  Task<bool> turn(std::function<bool()> may_go);
  /// Called once the schedule has done that many steps from now.
  void after_steps(std::uint64_t steps, std::function<void()> happens);

  /// Runs the task and all that it starts to the end. False: nothing can go on, or it does not end.
  bool run(Task<Result<void>> task, Result<void>& result);
  std::uint64_t steps() const { return steps_; }
  /// With DISKFERRY_TRACE in the environment: what happens, a line each, to be read.
  void trace(const std::string& what) const;

 private:
  struct Waiting {
    std::function<bool()> may_go;
    std::mutex guard{};
    WaitQueue queue{};
  };
  struct Event {
    std::uint64_t at = 0;
    std::function<void()> happens;
  };
  bool step();
  void fire_events(bool is_stuck);

  boost::asio::io_context io_;
  std::vector<Executor> executors_;
  BlockingPool pool_;
  BufferPool buffers_;
  FakeClock clock_;
  DriverContext context_;
  std::mt19937_64 random_;
  std::list<Waiting*> waiting_;
  std::vector<Event> events_;
  std::uint64_t steps_ = 0;
};

}  // namespace diskferry::sim
