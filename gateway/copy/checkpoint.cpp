// See checkpoint.hpp.
#include "gateway/copy/checkpoint.hpp"

#include "gateway/copy/verify.hpp"

namespace diskferry {

Checkpointer::Checkpointer(DriverContext& context, BlockDevice& target, Ledger* ledger,
                           CheckpointOptions options)
    : context_(context),
      target_(target),
      ledger_(ledger),
      options_(std::move(options)),
      last_(context.clock.now()) {}

void Checkpointer::finished(const Piece& piece) {
  std::lock_guard lock(guard_);
  pending_.push_back(piece);
  pending_bytes_ += piece.range.length;
}

bool Checkpointer::is_due(TimePoint now) const {
  std::lock_guard lock(guard_);
  return pending_bytes_ >= options_.bytes || pending_.size() >= pending_pieces_max / 2 ||
         (!pending_.empty() && now - last_ >= options_.interval);
}

Task<Result<void>> Checkpointer::run() {
  while (true) {
    if (is_due(context_.clock.now())) {
      auto done = co_await commit();
      if (!done && done.error().kind() != ErrorKind::cancelled) co_return done;
    }
    if (!co_await context_.clock.sleep_for(look_interval)) co_return Result<void>{};
  }
}

Task<Result<void>> Checkpointer::commit() {
  DISKFERRY_CO_TRY(const auto lock, co_await committing_.lock());
  // What fails stays pending, for the last checkpoint of a copy that ends early.
  std::vector<Piece> pieces;
  {
    std::lock_guard guard(guard_);
    pieces = pending_;
    last_ = context_.clock.now();
  }
  const TimePoint flush_begin = context_.clock.now();
  auto flushed = co_await target_.flush();
  if (!flushed) co_return unexpected(std::move(flushed).error().in("flush the target"));
  const TimePoint verify_begin = context_.clock.now();
  if (options_.verify && !pieces.empty()) {
    if (!options_.cache_path.empty()) {
      RangeSet parts;
      for (const Piece& piece : pieces) parts.add(piece.range);
      co_await drop_page_cache(context_, options_.cache_path,
                               options_.is_raw ? parts.inside({0, UINT64_MAX}) : std::vector<Range>{});
    }
    DISKFERRY_CO_CHECK(co_await verify_pieces(context_, target_, pieces, verified_bytes_));
    for (Piece& piece : pieces) piece = piece.as_verified();
  }
  const TimePoint record_begin = context_.clock.now();
  if (ledger_ != nullptr && !pieces.empty()) DISKFERRY_CO_CHECK(co_await ledger_->append(pieces));
  const TimePoint end = context_.clock.now();
  flush_ns_ += (verify_begin - flush_begin).count();
  verify_ns_ += (record_begin - verify_begin).count();
  record_ns_ += (end - record_begin).count();
  ++commits_;
  std::uint64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.range.length;
  {
    std::lock_guard guard(guard_);
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(pieces.size()));
    pending_bytes_ -= bytes;
  }
  durable_bytes_ += bytes;
  room_.release(pieces.size());
  co_return Result<void>{};
}

}  // namespace diskferry
