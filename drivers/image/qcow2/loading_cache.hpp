// A bounded cache of things that are loaded once although many ask for them at the same time: table slices
// and inflated clusters. Used by reader and writer of one image, from any thread. It holds no mutex while
// anything is loaded.
#pragma once

#include "diskferry/sync.hpp"

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace diskferry::qcow2 {

/// Values by a 64-bit key, evicted when least recently used. A value that somebody still points to is never
/// evicted: whoever must not lose one (a dirty table) keeps its pointer.
/// Thread: any. Lifetime: outlives its claims and every find_or_claim().
template <class Value>
class LoadingCache {
 public:
  using Pointer = std::shared_ptr<Value>;

  /// The right to load one key; others who ask for it wait. Gives up when destroyed.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept
        : cache_(std::exchange(other.cache_, nullptr)), key_(other.key_), id_(other.id_) {}
    Claim& operator=(Claim&& other) noexcept {
      give_up();
      cache_ = std::exchange(other.cache_, nullptr);
      key_ = other.key_;
      id_ = other.id_;
      return *this;
    }
    ~Claim() { give_up(); }

    /// Hands the loaded value to those who wait and, unless the key was forgotten meanwhile, to the cache.
    void publish(Pointer value, std::size_t bytes) {
      if (auto* cache = std::exchange(cache_, nullptr)) cache->end_claim(key_, id_, std::move(value), bytes);
    }

   private:
    friend class LoadingCache;
    Claim(LoadingCache& cache, std::uint64_t key, std::uint64_t id) : cache_(&cache), key_(key), id_(id) {}
    void give_up() {
      if (auto* cache = std::exchange(cache_, nullptr)) cache->end_claim(key_, id_, nullptr, 0);
    }
    LoadingCache* cache_ = nullptr;
    std::uint64_t key_ = 0;
    std::uint64_t id_ = 0;
  };
  struct Lookup {
    Pointer value;  ///< set: found; else load it and call claim.publish()
    Claim claim;
  };

  explicit LoadingCache(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  LoadingCache(const LoadingCache&) = delete;
  LoadingCache& operator=(const LoadingCache&) = delete;

  /// The value, if it is there now.
  Pointer find(std::uint64_t key) {
    std::lock_guard lock(guard_);
    return find_locked(key);
  }

  /// The value, or the right to load it. Waits while somebody else loads it. Errors: cancelled.
  /// A task that holds a claim must not ask for another key: two of them could wait for each other.
  Task<Result<Lookup>> find_or_claim(std::uint64_t key) {
    while (true) {
      std::unique_lock lock(guard_);
      if (auto found = find_locked(key)) co_return Lookup{std::move(found), {}};
      const auto [slot, is_new] = slots_.try_emplace(key);
      if (is_new) {
        slot->second.claim_id = ++last_claim_id_;
        co_return Lookup{nullptr, Claim(*this, key, slot->second.claim_id)};
      }
      if (!co_await waiting_.wait(lock)) co_return unexpected(cancelled_error("wait for metadata"));
    }
  }

  /// Puts a value there without loading (a table just made), replacing what was there.
  void insert(std::uint64_t key, Pointer value, std::size_t bytes) {
    std::lock_guard lock(guard_);
    forget_locked(key);
    store_locked(key, std::move(value), bytes);
  }

  /// Drops a key; a load in flight still answers those who wait for it, but does not enter the cache.
  void forget(std::uint64_t key) {
    std::lock_guard lock(guard_);
    forget_locked(key);
  }

  std::uint64_t held_bytes() const {
    std::lock_guard lock(guard_);
    return held_bytes_;
  }

 private:
  struct Slot {
    Pointer value;               // null: being loaded
    std::uint64_t claim_id = 0;  // of the load in flight
    std::size_t bytes = 0;
    std::list<std::uint64_t>::iterator place;  // in recent_, when value is set
  };
  /// How many values in use eviction looks past before it gives up for now.
  static constexpr int eviction_steps = 32;

  Pointer find_locked(std::uint64_t key) {
    const auto found = slots_.find(key);
    if (found == slots_.end() || !found->second.value) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second.place);
    return found->second.value;
  }
  void store_locked(std::uint64_t key, Pointer value, std::size_t bytes) {
    Slot& slot = slots_[key];
    recent_.push_front(key);
    slot.value = std::move(value);
    slot.claim_id = 0;
    slot.bytes = bytes;
    slot.place = recent_.begin();
    held_bytes_ += bytes;
    evict_locked();
  }
  void forget_locked(std::uint64_t key) {
    const auto found = slots_.find(key);
    if (found == slots_.end()) return;
    if (found->second.value) {
      held_bytes_ -= found->second.bytes;
      recent_.erase(found->second.place);
    }
    slots_.erase(found);
    waiting_.wake_all();
  }
  void evict_locked() {
    auto at = recent_.end();
    for (int steps = 0; held_bytes_ > limit_bytes_ && at != recent_.begin() && steps < eviction_steps;
         ++steps) {
      --at;
      const auto found = slots_.find(*at);
      // Pointers are handed out under guard_ only, so a count of one cannot grow meanwhile.
      if (found->second.value.use_count() != 1) continue;
      held_bytes_ -= found->second.bytes;
      slots_.erase(found);
      at = recent_.erase(at);
    }
  }
  void end_claim(std::uint64_t key, std::uint64_t id, Pointer value, std::size_t bytes) {
    std::lock_guard lock(guard_);
    const auto found = slots_.find(key);
    if (found != slots_.end() && !found->second.value && found->second.claim_id == id) {
      if (value) {
        store_locked(key, std::move(value), bytes);
      } else {
        slots_.erase(found);
      }
    }
    waiting_.wake_all();
  }

  const std::uint64_t limit_bytes_;
  mutable std::mutex guard_;
  std::unordered_map<std::uint64_t, Slot> slots_;
  std::list<std::uint64_t> recent_;  // most recent first
  std::uint64_t held_bytes_ = 0;
  std::uint64_t last_claim_id_ = 0;
  WaitQueue waiting_;
};

}  // namespace diskferry::qcow2
