// Payload memory. A Buffer is page-aligned and move-only: whoever holds it owns it. Buffers come from a pool
// with a byte limit, and waiting for a lease is the back-pressure of the data path. A task never completes,
// not even when cancelled, while a library may still touch the memory it was given.
#pragma once

#include "diskferry/sync.hpp"

#include <array>
#include <cstddef>
#include <mutex>
#include <span>
#include <vector>

namespace diskferry {

class BufferPool;

/// Memory of size() bytes, aligned to 4096, content undefined. Returns to its pool when destroyed, on any
/// thread.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { reset(); }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::span<std::byte> span() noexcept { return {data_, size_}; }
  std::span<const std::byte> span() const noexcept { return {data_, size_}; }
  explicit operator bool() const noexcept { return data_ != nullptr; }
  /// Gives the memory back at once.
  void reset() noexcept;

 private:
  friend class BufferPool;
  Buffer(BufferPool& pool, std::byte* data, std::size_t size, std::size_t class_bytes)
      : pool_(&pool), data_(data), size_(size), class_bytes_(class_bytes) {}
  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t class_bytes_ = 0;
};

/// Hands out buffers of powers of two between 4 KiB and 64 MiB; freed ones are kept for reuse within the
/// limit. Thread: any. Lifetime: outlives its buffers.
class BufferPool {
 public:
  static constexpr std::size_t alignment = 4096;
  static constexpr std::size_t buffer_bytes_max = std::size_t{64} << 20;

  explicit BufferPool(std::size_t limit_bytes);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();

  /// Waits until `bytes` fit under the limit. Precondition: bytes <= buffer_bytes_max.
  /// Errors: cancelled; too_large when the system has no memory. Cancel: gives up its place in the queue.
  Task<Result<Buffer>> acquire(std::size_t bytes);
  /// A buffer if one fits now, else an empty one.
  Buffer try_acquire(std::size_t bytes);
  std::size_t limit_bytes() const noexcept { return static_cast<std::size_t>(bytes_.capacity()); }
  std::size_t leased_bytes() const {
    return static_cast<std::size_t>(bytes_.capacity() - bytes_.available());
  }

 private:
  friend class Buffer;
  static constexpr std::size_t classes = 15;  // 4 KiB << 14 = 64 MiB
  static std::size_t class_of(std::size_t bytes) noexcept;
  Buffer take(std::size_t bytes, std::size_t class_index);
  /// Frees kept memory until it and what is leased are at most `total_bytes`. guard_ is held.
  void drop_kept(std::size_t total_bytes) noexcept;
  void give_back(std::byte* data, std::size_t class_bytes) noexcept;

  AsyncSemaphore bytes_;
  std::mutex guard_;
  std::array<std::vector<std::byte*>, classes> free_;
  std::size_t kept_bytes_ = 0;  // memory held in free_
};

}  // namespace diskferry
