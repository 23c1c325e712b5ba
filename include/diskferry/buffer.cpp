// The buffer pool: free lists by size class under a mutex, the limit in a semaphore.
#include "diskferry/buffer.hpp"

#include "diskferry/assert.hpp"

#include <algorithm>
#include <bit>
#include <new>

// Under AddressSanitizer, memory that waits in the pool is out of bounds: a library that still touches a
// buffer which was given back is found at once.
#if defined(__SANITIZE_ADDRESS__)
#define DISKFERRY_POISONS_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DISKFERRY_POISONS_MEMORY 1
#endif
#endif
#ifdef DISKFERRY_POISONS_MEMORY
#include <sanitizer/asan_interface.h>
#endif

namespace diskferry {

namespace {
void poison([[maybe_unused]] std::byte* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef DISKFERRY_POISONS_MEMORY
  ASAN_POISON_MEMORY_REGION(memory, bytes);
#endif
}
void unpoison([[maybe_unused]] std::byte* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef DISKFERRY_POISONS_MEMORY
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#endif
}
void release_memory(std::byte* memory, std::size_t bytes) noexcept {
  unpoison(memory, bytes);
  ::operator delete(memory, std::align_val_t{BufferPool::alignment});
}
}  // namespace

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      class_bytes_(std::exchange(other.class_bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    class_bytes_ = std::exchange(other.class_bytes_, 0);
  }
  return *this;
}

void Buffer::reset() noexcept {
  if (data_ != nullptr) pool_->give_back(data_, class_bytes_);
  pool_ = nullptr;
  data_ = nullptr;
  size_ = 0;
  class_bytes_ = 0;
}

BufferPool::BufferPool(std::size_t limit_bytes) : bytes_(limit_bytes) {
  DISKFERRY_ASSERT(limit_bytes >= alignment, "a buffer pool needs room for one buffer");
}

BufferPool::~BufferPool() {
  DISKFERRY_ASSERT(leased_bytes() == 0, "a buffer outlives its pool");
  for (std::size_t index = 0; index < classes; ++index) {
    for (std::byte* memory : free_[index]) release_memory(memory, alignment << index);
  }
}

std::size_t BufferPool::class_of(std::size_t bytes) noexcept {
  const std::size_t rounded = std::bit_ceil(bytes < alignment ? alignment : bytes);
  return static_cast<std::size_t>(std::countr_zero(rounded) - std::countr_zero(alignment));
}

Task<Result<Buffer>> BufferPool::acquire(std::size_t bytes) {
  DISKFERRY_ASSERT(bytes <= buffer_bytes_max, "a single buffer is limited to 64 MiB");
  const std::size_t index = class_of(bytes);
  DISKFERRY_CO_CHECK(co_await bytes_.acquire(alignment << index));
  Buffer buffer = take(bytes, index);
  if (!buffer) co_return unexpected(fail(ErrorKind::too_large, "allocate memory").why("out of memory"));
  co_return buffer;
}

Buffer BufferPool::try_acquire(std::size_t bytes) {
  DISKFERRY_ASSERT(bytes <= buffer_bytes_max, "a single buffer is limited to 64 MiB");
  const std::size_t index = class_of(bytes);
  if (!bytes_.try_acquire(alignment << index)) return {};
  return take(bytes, index);
}

Buffer BufferPool::take(std::size_t bytes, std::size_t class_index) {
  const std::size_t class_bytes = alignment << class_index;
  std::byte* memory = nullptr;
  {
    std::lock_guard lock(guard_);
    if (auto& list = free_[class_index]; !list.empty()) {
      memory = list.back();
      list.pop_back();
      kept_bytes_ -= class_bytes;
    } else {
      drop_kept(limit_bytes());
    }
  }
  if (memory == nullptr)
    memory = static_cast<std::byte*>(::operator new(class_bytes, std::align_val_t{alignment}, std::nothrow));
  if (memory == nullptr) {
    bytes_.release(class_bytes);
    return {};
  }
  // Only what was asked for, so that a byte too far is found, too.
  poison(memory, class_bytes);
  unpoison(memory, bytes);
  return Buffer(*this, memory, bytes, class_bytes);
}

void BufferPool::drop_kept(std::size_t total_bytes) noexcept {
  for (std::size_t index = classes; index-- > 0 && kept_bytes_ + leased_bytes() > total_bytes;) {
    auto& list = free_[index];
    while (!list.empty() && kept_bytes_ + leased_bytes() > total_bytes) {
      release_memory(list.back(), alignment << index);
      list.pop_back();
      kept_bytes_ -= alignment << index;
    }
  }
}

namespace {
/// Whether one more can be appended; false when the system has no memory for the list.
bool has_room(std::vector<std::byte*>& list) noexcept {
  if (list.size() < list.capacity()) return true;
  try {
    list.reserve(std::max<std::size_t>(16, 2 * list.size()));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}
}  // namespace

void BufferPool::give_back(std::byte* data, std::size_t class_bytes) noexcept {
  {
    std::lock_guard lock(guard_);
    // What is kept and what is leased together stay near the limit, whatever mixture of sizes was asked for.
    auto& list = free_[class_of(class_bytes)];
    if (kept_bytes_ + leased_bytes() <= limit_bytes() && has_room(list)) {
      poison(data, class_bytes);
      list.push_back(data);
      kept_bytes_ += class_bytes;
      data = nullptr;
    }
  }
  if (data != nullptr) release_memory(data, class_bytes);
  bytes_.release(class_bytes);
}

}  // namespace diskferry
