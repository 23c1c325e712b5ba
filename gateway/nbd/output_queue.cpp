// Replies that wait to be sent.
#include "gateway/nbd/output_queue.hpp"

#include "diskferry/assert.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry::nbd_server {

std::byte* OutputQueue::reserve(std::size_t bytes) {
  DISKFERRY_ASSERT(bytes <= block_bytes, "more than a block is sent from a buffer of its own");
  if (current_ == nullptr || block_bytes - current_->used < bytes) {
    if (!spare_.empty()) {
      current_ = spare_.back();
      spare_.pop_back();
    } else {
      blocks_.push_back(std::make_unique<Block>());
      current_ = blocks_.back().get();
      current_->memory = std::make_unique_for_overwrite<std::byte[]>(block_bytes);
    }
  }
  return current_->memory.get() + current_->used;
}

void OutputQueue::commit(std::size_t bytes) {
  std::byte* at = current_->memory.get() + current_->used;
  current_->used += bytes;
  current_->waiting += bytes;
  bytes_ += bytes;
  if (first_ < segments_.size() && segments_.back().block == current_ &&
      segments_.back().data + segments_.back().size == at) {
    segments_.back().size += bytes;
  } else {
    segments_.push_back({at, bytes, current_, {}});
  }
}

void OutputQueue::append(std::span<const std::byte> copied) {
  while (!copied.empty()) {
    const auto now = copied.first(std::min(copied.size(), block_bytes / 4));
    std::memcpy(reserve(now.size()), now.data(), now.size());
    commit(now.size());
    copied = copied.subspan(now.size());
  }
}

void OutputQueue::append_part(std::span<const std::byte> part) {
  if (part.empty()) return;
  bytes_ += part.size();
  segments_.push_back({part.data(), part.size(), nullptr, {}});
}

void OutputQueue::append(Buffer owner, std::span<const std::byte> part) {
  bytes_ += part.size();
  segments_.push_back({part.data(), part.size(), nullptr, std::move(owner)});
}

void OutputQueue::keep(Buffer owner) {
  if (bytes_ != 0) segments_.push_back({owner.data(), 0, nullptr, std::move(owner)});
}

std::span<const iovec> OutputQueue::gather(std::array<iovec, iovecs_max>& into) const {
  const std::size_t count = std::min(into.size(), segments_.size() - first_);
  for (std::size_t i = 0; i < count; ++i) {
    const Segment& segment = segments_[first_ + i];
    into[i] = {const_cast<std::byte*>(segment.data), segment.size};
  }
  return std::span(into).first(count);
}

void OutputQueue::release(Block* block) {
  block->used = 0;
  if (block == current_) return;
  // One spare is enough for a client that keeps up; the rest is given back.
  if (spare_.empty()) {
    spare_.push_back(block);
  } else {
    std::erase_if(blocks_, [block](const auto& one) { return one.get() == block; });
  }
}

void OutputQueue::sent(std::size_t bytes) {
  DISKFERRY_ASSERT(bytes <= bytes_, "more was sent than waited");
  bytes_ -= bytes;
  while (first_ < segments_.size()) {
    Segment& segment = segments_[first_];
    const std::size_t now = std::min(bytes, segment.size);
    segment.data += now;
    segment.size -= now;
    bytes -= now;
    if (segment.block != nullptr) {
      segment.block->waiting -= now;
      if (segment.block->waiting == 0) release(segment.block);
    }
    if (segment.size != 0) {
      if (first_ >= 4 * iovecs_max) {  // a queue that never runs empty must not grow
        segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(first_));
        first_ = 0;
      }
      return;
    }
    segment.owner.reset();
    ++first_;
  }
  segments_.clear();
  first_ = 0;
}

void OutputQueue::clear() {
  sent(bytes_);
}

}  // namespace diskferry::nbd_server
