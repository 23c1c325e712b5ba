// See the header.
#include "drivers/filters/kept_writes.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace diskferry {
namespace {

KeptWrites::Piece cut_to(KeptWrites::Piece piece, Range range) {
  const Range rest = intersect(piece.range, range);
  piece.begin += rest.offset - piece.range.offset;
  piece.range = rest;
  return piece;
}

}  // namespace

KeptWrites::Content KeptWrites::copy_of(std::span<const std::byte> bytes) {
  return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}

void KeptWrites::put(std::uint64_t offset, Content content) {
  const Range range{offset, content->size()};
  forget(range);
  insert({.range = range, .content = std::move(content), .number = ++newest_});
}

void KeptWrites::put_zeros(Range range, bool may_unmap) {
  forget(range);
  if (!range.empty()) insert({.range = range, .content = {}, .may_unmap = may_unmap, .number = ++newest_});
}

void KeptWrites::forget(Range range) {
  while (true) {
    const auto found = first_in(range);
    if (found == pieces_.end() || !found->second.range.overlaps(range)) return;
    const Piece piece = found->second;
    erase(pieces_.find(found->first));
    const Range whole = piece.range;
    if (whole.offset < range.offset) insert(cut_to(piece, {whole.offset, range.offset - whole.offset}));
    if (range.end() < whole.end()) insert(cut_to(piece, {range.end(), whole.end() - range.end()}));
  }
}

void KeptWrites::forget_until(std::uint64_t number) {
  for (auto at = pieces_.begin(); at != pieces_.end();) {
    const auto next = std::next(at);
    if (at->second.number <= number) erase(at);
    at = next;
  }
}

std::uint64_t KeptWrites::used_bytes() const noexcept {
  return content_bytes_ + pieces_.size() * entry_bytes;
}

std::optional<KeptWrites::Piece> KeptWrites::first_within(Range range) const {
  const auto found = first_in(range);
  if (found == pieces_.end() || !found->second.range.overlaps(range)) return std::nullopt;
  return cut_to(found->second, range);
}

std::vector<KeptWrites::Piece> KeptWrites::within(Range range) const {
  std::vector<Piece> found;
  for (auto at = first_in(range); at != pieces_.end() && at->second.range.overlaps(range); ++at)
    found.push_back(cut_to(at->second, range));
  return found;
}

/// The first piece that does not end before the range: if any of the range is kept, that.
KeptWrites::Pieces::const_iterator KeptWrites::first_in(Range range) const {
  auto at = pieces_.lower_bound(range.offset);
  if (at != pieces_.begin() && std::prev(at)->second.range.end() > range.offset) --at;
  return at;
}

void KeptWrites::insert(Piece piece) {
  // A content is in memory as a whole for as long as any of it is needed.
  if (piece.content && ++contents_[piece.content.get()] == 1) content_bytes_ += piece.content->size();
  const std::uint64_t offset = piece.range.offset;
  pieces_.emplace(offset, std::move(piece));
}

void KeptWrites::erase(Pieces::iterator at) {
  if (const Content& content = at->second.content) {
    const auto used = contents_.find(content.get());
    if (--used->second == 0) {
      content_bytes_ -= content->size();
      contents_.erase(used);
    }
  }
  pieces_.erase(at);
}

}  // namespace diskferry
