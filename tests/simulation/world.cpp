#include "tests/simulation/world.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

namespace diskferry::sim {
namespace {
constexpr std::size_t buffer_bytes = std::size_t{64} << 20;
/// A run that takes more than this does not end.
constexpr std::uint64_t steps_max = 400'000;
}  // namespace

World::World(std::uint64_t seed)
    : io_(1),
      executors_{io_.get_executor()},
      pool_(0),
      buffers_(buffer_bytes),
      context_{.reactors = executors_, .blocking_pool = pool_, .buffers = buffers_, .clock = clock_},
      random_(seed) {}

World::~World() = default;

Task<bool> World::turn(std::function<bool()> may_go) {
  Waiting waiting{.may_go = std::move(may_go)};
  waiting_.push_back(&waiting);
  std::unique_lock lock(waiting.guard);
  const bool is_turn = co_await waiting.queue.wait(lock);
  std::erase(waiting_, &waiting);
  co_return is_turn;
}

void World::after_steps(std::uint64_t steps, std::function<void()> happens) {
  events_.push_back({steps_ + steps, std::move(happens)});
}

/// When nothing else can happen, what was to happen later happens now.
void World::fire_events(bool is_stuck) {
  if (is_stuck && !events_.empty()) {
    const auto first = std::ranges::min_element(events_, {}, &Event::at);
    first->at = steps_;
  }
  for (std::size_t i = 0; i < events_.size();) {
    if (events_[i].at > steps_) {
      ++i;
      continue;
    }
    const auto happens = std::move(events_[i].happens);
    events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(i));
    happens();
  }
}

void World::trace(const std::string& what) const {
  static const bool is_wanted = std::getenv("DISKFERRY_TRACE") != nullptr;
  if (is_wanted) fmt::print(stderr, "{:6} {}\n", steps_, what);
}

bool World::step() {
  ++steps_;
  fire_events(false);
  std::vector<Waiting*> able;
  for (Waiting* one : waiting_) {
    if (one->may_go() && !one->queue.empty()) able.push_back(one);
  }
  const auto wake = clock_.first_wake();
  constexpr std::uint64_t time_passes_in = 12;
  if (!able.empty() && !(wake && one_in(time_passes_in))) {
    Waiting& chosen = *able[random(able.size())];
    std::lock_guard lock(chosen.guard);
    chosen.queue.wake_one();
    return true;
  }
  if (wake) {
    clock_.advance(std::max(Duration(1), *wake - clock_.now()));
    return true;
  }
  if (events_.empty()) return false;
  fire_events(true);
  return true;
}

bool World::run(Task<Result<void>> task, Result<void>& result) {
  std::optional<Result<void>> ended;
  boost::asio::co_spawn(
      executor(), top_frame(std::move(task)),
      [&ended](std::exception_ptr, Result<void> value) { ended.emplace(std::move(value)); });
  for (const std::uint64_t last = steps_ + steps_max; steps_ < last;) {
    io_.restart();
    io_.poll();
    if (ended) {
      result = *std::move(ended);
      return true;
    }
    if (!step()) return false;
  }
  return false;
}

}  // namespace diskferry::sim
