#include "diskferry/units.hpp"
#include "drivers/image/qcow2/compression.hpp"
#include "tests/support/pattern.hpp"

#include <random>
#include <zlib.h>

#include <gtest/gtest.h>
#include <zstd.h>

namespace diskferry::qcow2 {
namespace {

/// Text-like content with matches that reach back further than 4 KiB.
std::vector<std::byte> compressible(std::size_t length) {
  std::vector<std::byte> bytes(length);
  std::mt19937_64 random(7);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(random() % 7 + 'a');
  for (std::size_t i = 9000; i + 100 < length; i += 300) std::copy_n(&bytes[i - 8900], 90, &bytes[i]);
  return bytes;
}

class Compression : public testing::TestWithParam<CompressionType> {};

TEST_P(Compression, WhatIsDeflatedComesBackAlsoWithBytesBehindIt) {
  for (const std::size_t length : {512ul, 65536ul, 2097152ul}) {
    const auto cluster = compressible(length);
    std::vector<std::byte> packed(length - 1);
    const auto used = deflate_cluster(GetParam(), cluster, packed);
    ASSERT_TRUE(used);
    packed.resize(*used + 511, std::byte{0x5a});
    for (std::size_t i = *used; i < packed.size(); ++i) packed[i] = std::byte{0x5a};
    std::vector<std::byte> back(length);
    const auto inflated = inflate_cluster(GetParam(), packed, back);
    ASSERT_TRUE(inflated) << inflated.error().message();
    EXPECT_EQ(back, cluster);
  }
}

TEST_P(Compression, WhatDoesNotShrinkIsRefused) {
  std::vector<std::byte> noise(65536);
  std::mt19937_64 random(1);
  for (auto& one : noise) one = static_cast<std::byte>(random());
  std::vector<std::byte> packed(noise.size() - 1);
  EXPECT_FALSE(deflate_cluster(GetParam(), noise, packed));
}

TEST_P(Compression, GarbageAndShortDataAreCorruptNotACrash) {
  const auto cluster = compressible(65536);
  std::vector<std::byte> packed(65535);
  const auto used = deflate_cluster(GetParam(), cluster, packed);
  ASSERT_TRUE(used);
  std::vector<std::byte> back(65536);
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, *used / 2, *used - 30}) {
    const auto result = inflate_cluster(GetParam(), std::span(packed).first(length), back);
    ASSERT_FALSE(result) << length;
    EXPECT_EQ(result.error().kind(), ErrorKind::corrupt);
  }
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    auto damaged = std::vector(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(*used));
    damaged[random() % damaged.size()] ^= static_cast<std::byte>(1 + random() % 255);
    (void)inflate_cluster(GetParam(), damaged, back);
  }
}
INSTANTIATE_TEST_SUITE_P(Both, Compression, testing::Values(CompressionType::zlib, CompressionType::zstd));

TEST(Compression, DeflateWithoutAnEndMarkIsRead) {
  const auto cluster = compressible(65536);
  std::vector<std::byte> packed(65536);
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(cluster.data()));
  stream.avail_in = static_cast<uInt>(cluster.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(deflate(&stream, Z_SYNC_FLUSH), Z_OK);
  const std::size_t used = packed.size() - stream.avail_out;
  deflateEnd(&stream);
  std::vector<std::byte> back(65536);
  const auto result = inflate_cluster(CompressionType::zlib, std::span(packed).first(used), back);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(back, cluster);
  // A stream of more than the cluster fills the cluster.
  back.resize(4096);
  EXPECT_TRUE(inflate_cluster(CompressionType::zlib, std::span(packed).first(used), back));
  EXPECT_TRUE(std::equal(back.begin(), back.end(), cluster.begin()));
}

TEST(Compression, SeveralZstdFramesFillOneCluster) {
  const auto cluster = compressible(65536);
  std::vector<std::byte> packed(131072);
  const std::size_t first = ZSTD_compress(packed.data(), packed.size(), cluster.data(), 20000, 3);
  const std::size_t second =
      ZSTD_compress(packed.data() + first, packed.size() - first, cluster.data() + 20000, 45536, 3);
  std::vector<std::byte> back(65536);
  ASSERT_TRUE(inflate_cluster(CompressionType::zstd, std::span(packed).first(first + second), back));
  EXPECT_EQ(back, cluster);
}

}  // namespace
}  // namespace diskferry::qcow2
