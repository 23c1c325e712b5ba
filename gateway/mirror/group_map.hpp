// Groups of 64 neighbouring blocks that have something pending, found by their number. Groups are reused, so
// that a request allocates nothing once there have been as many at a time before.
#pragma once

#include "diskferry/clock.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace diskferry {

inline constexpr unsigned group_blocks = 64;

/// What is pending in a group, a bit a block. A block has at most one version that is *queued* and one that
/// is *flying*: part of a request to the target. A version is content in a slot, or zeros, or part of a
/// block.
struct Group {
  struct Versions {
    std::uint64_t all = 0;
    std::uint64_t zero = 0;     ///< of these, zeros: no slot
    std::uint64_t partial = 0;  ///< of these, parts of blocks
    std::uint64_t old = 0;      ///< of these, from before the barrier
    std::array<std::uint32_t, group_blocks> slot;
  };
  std::uint64_t number = 0;
  Versions queued;
  Versions flying;
  std::uint32_t barrier = 0;  ///< `old` is of this one
  unsigned cursor = 0;        ///< where the sender goes on
  bool is_ready = false;      ///< in the list of groups with something to send
  Group* ready_before = nullptr;
  Group* ready_after = nullptr;
  Group* next = nullptr;  ///< in its bucket
  TimePoint since{};      ///< of the oldest queued version

  /// Queued and not held up by an older version of the same block.
  std::uint64_t sendable() const noexcept { return queued.all & ~flying.all; }
  bool is_empty() const noexcept { return queued.all == 0 && flying.all == 0; }
};

/// Not thread-safe.
class GroupMap {
 public:
  /// What a group counts in the window.
  static constexpr std::uint64_t group_bytes = sizeof(Group) + 2 * sizeof(Group*);

  GroupMap() : buckets_(buckets_min, nullptr) {}
  GroupMap(const GroupMap&) = delete;
  GroupMap& operator=(const GroupMap&) = delete;

  Group* find(std::uint64_t number) const noexcept {
    Group* group = buckets_[bucket_of(number)];
    while (group != nullptr && group->number != number) group = group->next;
    return group;
  }
  /// An empty group. Throws std::bad_alloc. Precondition: there is none of that number.
  Group& add(std::uint64_t number) {
    if (size_ >= buckets_.size()) grow();
    if (free_ == nullptr) {
      groups_.push_back(std::make_unique<Group>());
      free_ = groups_.back().get();
      free_->next = nullptr;
    }
    Group& group = *free_;
    free_ = group.next;
    group.number = number;
    group.queued.all = group.queued.zero = group.queued.partial = group.queued.old = 0;
    group.flying.all = group.flying.zero = group.flying.partial = group.flying.old = 0;
    group.cursor = 0;
    Group*& bucket = buckets_[bucket_of(number)];
    group.next = bucket;
    bucket = &group;
    ++size_;
    return group;
  }
  /// The group may be gone afterwards.
  void remove(Group& group) noexcept {
    Group** at = &buckets_[bucket_of(group.number)];
    while (*at != &group) at = &(*at)->next;
    *at = group.next;
    group.next = free_;
    free_ = &group;
    if (--size_ == 0 && groups_.size() > kept_max) {
      groups_.clear();
      free_ = nullptr;
    }
  }
  std::uint64_t size() const noexcept { return size_; }
  /// Calls `visit(group)` for each; it may remove that group.
  template <class Visit>
  void for_each(Visit visit) {
    for (Group* group : buckets_) {
      while (group != nullptr) {
        Group* const next = group->next;
        visit(*group);
        group = next;
      }
    }
  }

 private:
  static constexpr std::size_t buckets_min = 64;  // a power of two
  static constexpr std::size_t kept_max = 4096;   // for reuse, when nothing is pending

  std::size_t bucket_of(std::uint64_t number) const noexcept {
    return static_cast<std::size_t>((number * 0x9e3779b97f4a7c15u) >> 20) & (buckets_.size() - 1);
  }
  void grow() {
    std::vector<Group*> old(2 * buckets_.size(), nullptr);
    old.swap(buckets_);
    for (Group* group : old) {
      while (group != nullptr) {
        Group* const next = group->next;
        Group*& bucket = buckets_[bucket_of(group->number)];
        group->next = bucket;
        bucket = group;
        group = next;
      }
    }
  }

  std::vector<Group*> buckets_;
  std::vector<std::unique_ptr<Group>> groups_;
  Group* free_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace diskferry
