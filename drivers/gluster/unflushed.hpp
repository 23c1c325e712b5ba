// What was written and is not known to be durable. Each opening of the file has a number: what was
// acknowledged through one cannot be flushed through another, for the brick may have been restarted between
// them. Pure.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace diskferry::gluster {

/// Thread: any.
class Unflushed {
 public:
  /// A change was acknowledged.
  void written(std::uint64_t generation) {
    std::lock_guard lock(guard_);
    open_.add(generation);
  }
  bool is_empty() const {
    std::lock_guard lock(guard_);
    return !open_.generation;
  }
  /// Before a flush is sent: what it has to cover is set apart. One flush at a time.
  void begin_flush() {
    std::lock_guard lock(guard_);
    covered_ = std::exchange(open_, {});
  }
  /// The flush succeeded. False: some of what it had to cover may be lost, and stays so.
  bool flushed(std::uint64_t generation) {
    std::lock_guard lock(guard_);
    const Changes covered = std::exchange(covered_, {});
    if (covered.is_mixed || (covered.generation && *covered.generation != generation)) is_lost_ = true;
    return !is_lost_;
  }
  /// The flush was not carried out: what it had to cover is still to be covered.
  void not_flushed() {
    std::lock_guard lock(guard_);
    const Changes later = std::exchange(open_, std::exchange(covered_, {}));
    if (later.generation) open_.add(*later.generation);
    open_.is_mixed = open_.is_mixed || later.is_mixed;
  }
  /// A brick says that it failed: a file system tells that once, and the next flush would succeed.
  void lose() {
    std::lock_guard lock(guard_);
    is_lost_ = true;
  }
  bool is_lost() const {
    std::lock_guard lock(guard_);
    return is_lost_;
  }

 private:
  struct Changes {
    std::optional<std::uint64_t> generation{};
    bool is_mixed = false;  ///< through several openings
    void add(std::uint64_t one) {
      if (generation && *generation != one) is_mixed = true;
      generation = one;
    }
  };
  mutable std::mutex guard_;
  Changes open_{};
  Changes covered_{};
  bool is_lost_ = false;
};

}  // namespace diskferry::gluster
