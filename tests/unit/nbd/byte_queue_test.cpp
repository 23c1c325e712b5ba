// Bytes come out as they went in, and a queue that never runs empty does not grow.
#include "gateway/nbd/byte_queue.hpp"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

namespace diskferry::nbd_server {
namespace {

TEST(ByteQueue, GivesBytesInOrderAndStaysSmallWhileItNeverRunsEmpty) {
  constexpr std::size_t waiting_max = 64 * 1024;
  std::array<std::byte, 1000> part{};
  ByteQueue queue;
  std::uint32_t in = 0;
  std::uint32_t out = 0;
  while (out < 4'000'000) {
    while (queue.waiting().size() < waiting_max) {
      for (std::byte& one : part) one = static_cast<std::byte>(in++ * 7 >> 3);
      queue.append(part);
    }
    const std::size_t now = queue.waiting().size() / 3;
    const bool is_same = std::ranges::all_of(queue.waiting().first(now), [&out](std::byte one) {
      return one == static_cast<std::byte>(out++ * 7 >> 3);
    });
    ASSERT_TRUE(is_same) << "before byte " << out;
    queue.pop(now);
  }
  EXPECT_LE(queue.memory_bytes(), 4 * waiting_max);
  queue.pop(queue.waiting().size());
  EXPECT_TRUE(queue.waiting().empty());
}

}  // namespace
}  // namespace diskferry::nbd_server
