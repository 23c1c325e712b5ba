// Bytes in, bytes out, in order: the ciphertext that waits to be sent. Its memory follows what waits at once,
// not what has passed through: a queue that never runs empty stays as small as any other.
#pragma once

#include "diskferry/assert.hpp"

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace diskferry::nbd_server {

/// Thread: one at a time.
class ByteQueue {
 public:
  void append(std::span<const std::byte> bytes) {
    // What has left makes room before more memory is taken.
    if (begin_ != 0 && memory_.size() + bytes.size() > memory_.capacity()) {
      memory_.erase(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(begin_));
      begin_ = 0;
    }
    memory_.insert(memory_.end(), bytes.begin(), bytes.end());
  }
  /// Valid until the next append() or pop().
  std::span<const std::byte> waiting() const noexcept { return std::span(memory_).subspan(begin_); }
  void pop(std::size_t bytes) {
    DISKFERRY_ASSERT(bytes <= memory_.size() - begin_, "more is taken than waits");
    begin_ += bytes;
    if (begin_ != memory_.size()) return;
    memory_.clear();
    begin_ = 0;
  }
  std::size_t memory_bytes() const noexcept { return memory_.capacity(); }

 private:
  std::vector<std::byte> memory_;
  std::size_t begin_ = 0;  // what is before it has left
};

}  // namespace diskferry::nbd_server
