// A small valid qcow2 image made byte by byte, to be damaged by tests.
#pragma once

#include "diskferry/units.hpp"

#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry::test {

/// Cluster 0: header, 1: refcount table, 2: refcount block, 3: L1, 4: L2, 5: data of guest cluster 0 (0x11),
/// 6: free for a test. A disk of 16 guest clusters.
struct TinyQcow2 {
  unsigned cluster_bits;
  std::size_t cluster;
  std::vector<std::byte> bytes;

  explicit TinyQcow2(unsigned version = 3, unsigned bits = 16)
      : cluster_bits(bits), cluster(std::size_t{1} << bits), bytes(cluster * 7) {
    put32(0, 0x514649fb);
    put32(4, version);
    put32(20, bits);
    put64(24, cluster * 16);
    put32(36, 1);
    put64(40, at(3));
    put64(48, at(1));
    put32(56, 1);
    if (version == 3) {
      put32(96, 4);
      put32(100, 112);
    }
    put64(at(1), at(2));
    for (std::size_t i = 0; i < 6; ++i) bytes[at(2) + i * 2 + 1] = std::byte{1};
    put64(at(3), at(4) | copied);
    put64(at(4), at(5) | copied);
    std::memset(bytes.data() + at(5), 0x11, cluster);
  }

  static constexpr std::uint64_t copied = std::uint64_t{1} << 63;
  static constexpr std::uint64_t compressed = std::uint64_t{1} << 62;
  std::size_t at(std::size_t number) const { return number * cluster; }
  void put32(std::size_t where, std::uint32_t value) { store_big(bytes.data() + where, value); }
  void put64(std::size_t where, std::uint64_t value) { store_big(bytes.data() + where, value); }
  void put_text(std::size_t where, std::string_view text) {
    std::memcpy(bytes.data() + where, text.data(), text.size());
  }
  std::size_t l2_entry(std::size_t index) const { return at(4) + index * 8; }
  /// Appends a header extension at `where` (112 is the first place); returns the place after it.
  std::size_t put_extension(std::size_t where, std::uint32_t type, std::string_view data) {
    put32(where, type);
    put32(where + 4, static_cast<std::uint32_t>(data.size()));
    put_text(where + 8, data);
    return where + 8 + (data.size() + 7) / 8 * 8;
  }
  void backing(std::string_view name) {
    put64(8, 512);
    put32(16, static_cast<std::uint32_t>(name.size()));
    put_text(512, name);
  }
  void write_to(const std::string& path) const {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
};

}  // namespace diskferry::test
