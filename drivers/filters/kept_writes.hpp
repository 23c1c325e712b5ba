// What was written to a device and is not known to be durable there, with its content: so that it can be
// read, and written again where the storage has lost it.
#pragma once

#include "diskferry/block_device.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace diskferry {

/// Thread: whoever owns it takes care; what within() gives may be read by anyone.
class KeptWrites {
 public:
  /// What one entry costs beside its content, roughly; counted as used.
  static constexpr std::size_t entry_bytes = 128;

  using Content = std::shared_ptr<const std::vector<std::byte>>;
  /// A copy of what is written, made before anything is locked.
  static Content copy_of(std::span<const std::byte> bytes);

  struct Piece {
    Range range;
    Content content;         ///< null: zeros
    std::size_t begin = 0;   ///< of the piece in its content
    bool may_unmap = false;  ///< of zeros, as ZeroFlags
    std::uint64_t number = 0;

    std::span<const std::byte> bytes() const { return std::span(*content).subspan(begin, range.length); }
  };

  /// `content` is what `offset` holds from now on.
  void put(std::uint64_t offset, Content content);
  void put_zeros(Range range, bool may_unmap);
  /// Of the range nothing is to be kept: it is durable, or nobody needs it any more.
  void forget(Range range);
  /// The number of the newest that was put: forget_until() of it, later, forgets all that is here now.
  std::uint64_t newest() const noexcept { return newest_; }
  void forget_until(std::uint64_t number);

  bool empty() const noexcept { return pieces_.empty(); }
  std::uint64_t used_bytes() const noexcept;
  /// The first part of the range that is kept; nullopt: none is.
  std::optional<Piece> first_within(Range range) const;
  /// What is kept of the range, in order, cut to it.
  std::vector<Piece> within(Range range) const;
  std::vector<Piece> all() const { return within({0, UINT64_MAX}); }

 private:
  using Pieces = std::map<std::uint64_t, Piece>;  // by offset; they do not overlap
  Pieces::const_iterator first_in(Range range) const;
  void insert(Piece piece);
  void erase(Pieces::iterator at);

  Pieces pieces_{};
  std::map<const void*, std::size_t> contents_{};  // in how many pieces each is
  std::uint64_t content_bytes_ = 0;
  std::uint64_t newest_ = 0;
};

}  // namespace diskferry
