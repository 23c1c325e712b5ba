// The way between the gateway and a storage of the simulated world, which can be cut for a while: requests do
// not arrive any more, or they do and their answers are lost. Who waits gives up in time, or sends again when
// the way is there again, as drivers do.
//
// The bound on what a storage still does of requests that were given up: all of it is done before it answers
// anything again. It is what fences promise (exclusive locks, reservations), and what a server with a time
// limit below the gateway's patience comes to; a storage without either has no such bound
// (docs/decisions/0003, 0016).
#pragma once

#include "tests/simulation/world.hpp"

#include <functional>
#include <map>
#include <optional>

namespace diskferry::sim {

class Link {
 public:
  enum class Loss : std::uint8_t { requests, answers };
  struct Cut {
    Loss loss = Loss::requests;
    std::uint64_t patience_steps = 1;     ///< who waits longer than that gives up
    bool is_sent_again = true;            ///< when it is healed; else what waits then has failed
    ErrorKind error = ErrorKind::gone;    ///< of who gives up
    std::uint64_t done_within_steps = 1;  ///< what was sent and not answered, if it is not healed before
  };

  /// Called when a request is sent, before anything else; may cut.
  std::function<void()> on_request{};

  void cut(World& world, const Cut& how) {
    if (cut_) return;
    world_ = &world;
    cut_ = how;
    ++cuts_;
  }
  void heal() {
    if (!cut_) return;
    cut_.reset();
    for (; !late_.empty(); do_late(
             std::next(late_.begin(), static_cast<std::ptrdiff_t>(world_->random(late_.size())))->first)) {
    }
  }
  bool is_cut() const { return cut_.has_value(); }
  /// How many requests have failed because of it.
  std::uint64_t given_up() const { return given_up_; }

  void note_request() const {
    if (on_request) on_request();
  }
  /// A request of a link that is cut; `effect` is what it does to the storage, if it comes there. True: the
  /// link is healed, and it is sent again.
  Task<Result<bool>> lose(const char* verb, const std::string& name, std::function<void()> effect,
                          bool can_be_sent_again, std::function<bool()> is_over) {
    World& world = *world_;
    const Cut how = *cut_;
    if (how.loss == Loss::answers && effect) do_later(std::move(effect), how.done_within_steps);
    const std::uint64_t number = cuts_;
    const std::uint64_t gives_up_at = world.steps() + how.patience_steps;
    const auto is_healed = [this, number] { return !cut_ || cuts_ != number; };
    const bool is_turn =
        co_await world.turn([&] { return is_healed() || is_over() || world.steps() >= gives_up_at; });
    if (!is_turn) co_return unexpected(cancelled_error(verb, name));
    if (is_over()) co_return unexpected(fail(ErrorKind::gone, verb, name));
    if (is_healed() && how.is_sent_again && can_be_sent_again) co_return true;
    ++given_up_;
    co_return unexpected(fail(how.error, verb, name).why("it was not answered"));
  }

 private:
  void do_later(std::function<void()> effect, std::uint64_t within_steps) {
    const std::uint64_t key = ++keys_;
    late_.emplace(key, std::move(effect));
    world_->after_steps(1 + world_->random(within_steps), [this, key] { do_late(key); });
  }
  void do_late(std::uint64_t key) {
    if (const auto found = late_.extract(key)) found.mapped()();
  }

  World* world_ = nullptr;
  std::optional<Cut> cut_{};
  std::uint64_t cuts_ = 0;
  std::uint64_t given_up_ = 0;
  std::uint64_t keys_ = 0;
  std::map<std::uint64_t, std::function<void()>> late_{};  // sent, and not done yet
};

}  // namespace diskferry::sim
