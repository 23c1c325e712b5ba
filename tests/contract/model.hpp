// What a device should hold: its bytes in memory, and which of them are not defined at the moment.
#pragma once

#include "diskferry/extent.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace diskferry::test {

class Model {
 public:
  explicit Model(std::uint64_t size_bytes) : bytes_(size_bytes), defined_(size_bytes, 1) {}

  void write(std::uint64_t offset, std::span<const std::byte> from) {
    std::ranges::copy(from, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    mark(offset, from.size(), 1);
  }
  void zero(Range range) {
    std::fill_n(bytes_.begin() + static_cast<std::ptrdiff_t>(range.offset), range.length, std::byte{0});
    mark(range.offset, range.length, 1);
  }
  /// After a discard, or a write that failed: anything may be there.
  void forget(Range range) { mark(range.offset, range.length, 0); }

  /// Empty, or what is wrong with `got`, which was read at `offset`.
  std::string difference(std::uint64_t offset, std::span<const std::byte> got) const {
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (defined_[offset + i] != 0 && bytes_[offset + i] != got[i])
        return "byte " + std::to_string(offset + i) + " is " + std::to_string(std::to_integer<int>(got[i])) +
               ", expected " + std::to_string(std::to_integer<int>(bytes_[offset + i]));
    }
    return {};
  }
  bool is_zero_where_defined(Range range) const {
    for (std::uint64_t at = range.offset; at < range.end(); ++at) {
      if (defined_[at] != 0 && bytes_[at] != std::byte{0}) return false;
    }
    return true;
  }
  std::uint64_t size_bytes() const { return bytes_.size(); }

 private:
  void mark(std::uint64_t offset, std::uint64_t length, char defined) {
    std::fill_n(defined_.begin() + static_cast<std::ptrdiff_t>(offset), length, defined);
  }
  std::vector<std::byte> bytes_;
  std::vector<char> defined_;
};

}  // namespace diskferry::test
