// Replies that wait to be sent, as the iovecs of one sendmsg. Small ones are built in place, in blocks that
// are reused while they are still in the cache; large payloads are sent from the buffer they were read into.
#pragma once

#include "diskferry/buffer.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <sys/uio.h>
#include <vector>

namespace diskferry::nbd_server {

/// Thread: one at a time.
class OutputQueue {
 public:
  /// Room for 32 replies of 4 KiB, and small enough to stay in a second-level cache.
  static constexpr std::size_t block_bytes = 256u << 10;
  static constexpr std::size_t iovecs_max = 64;

  /// Contiguous room for `bytes` <= block_bytes, valid until the next call of any other function.
  std::byte* reserve(std::size_t bytes);
  /// The first `bytes` of what was reserved last are to be sent.
  void commit(std::size_t bytes);
  void append(std::span<const std::byte> copied);
  /// A part of a buffer that a later append(Buffer) keeps alive: in FIFO order it is sent before.
  void append_part(std::span<const std::byte> part);
  /// A part of `owner`, which is given back once it was sent.
  void append(Buffer owner, std::span<const std::byte> part);

  /// Keeps `owner` until all that was appended so far is sent.
  void keep(Buffer owner);

  bool empty() const noexcept { return bytes_ == 0; }
  std::size_t bytes() const noexcept { return bytes_; }
  std::span<const iovec> gather(std::array<iovec, iovecs_max>& into) const;
  void sent(std::size_t bytes);
  void clear();

 private:
  struct Block {
    std::unique_ptr<std::byte[]> memory;
    std::size_t used = 0;
    std::size_t waiting = 0;  // committed and not sent
  };
  struct Segment {
    const std::byte* data;
    std::size_t size;
    Block* block;  // null where the memory is not a block's
    Buffer owner;
  };
  void release(Block* block);

  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Block*> spare_;
  Block* current_ = nullptr;
  std::vector<Segment> segments_;
  std::size_t first_ = 0;  // segments before this one were sent
  std::size_t bytes_ = 0;
};

}  // namespace diskferry::nbd_server
