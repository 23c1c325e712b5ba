// A session's requests. What the device serves without waiting is answered in the loop that parses; the rest
// becomes a task each. Nothing in the first way allocates, locks or changes threads per request.
#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"
#include "gateway/nbd/session.hpp"

#include <algorithm>
#include <cstring>

namespace diskferry::nbd_server {
namespace {

/// Reads up to this size are built in place behind their header; larger ones get a buffer of their own, so
/// that a block of the output queue is never left half empty.
constexpr std::size_t in_place_bytes_max = 64u << 10;
/// Writes up to this size are served from the input buffer once they are there as a whole.
constexpr std::size_t buffered_write_bytes_max = 64u << 10;
/// The longest that one request may keep the reactor busy with copying.
constexpr std::size_t inline_bytes_max = 1u << 20;
/// How often a device is asked for more extents before an answer goes out as it is.
constexpr unsigned status_calls_max = 64;
/// Extents are hardly ever finer than this: what a short block status is reckoned with.
constexpr std::uint64_t status_grain_bytes = 512;
/// One payload of a filtered block status: a length and every context there can be, twice over.
constexpr std::size_t status_payload_bytes_max = 8 + 4 * 256;

}  // namespace

Session::Pause Session::serve_buffered() {
  batch_ = export_->hold();
  Pause pause = Pause::need_input;
  while (!broken_) {
    if (skip_bytes_ != 0) {
      const auto now = static_cast<std::size_t>(std::min<std::uint64_t>(skip_bytes_, end_ - begin_));
      begin_ += now;
      skip_bytes_ -= now;
      if (skip_bytes_ != 0) break;
      output_.append(std::exchange(after_skip_, {}));
    }
    if (is_blocked()) {
      pause = Pause::blocked;
      break;
    }
    const std::size_t header_bytes = request_bytes_of(terms_.requests.style);
    if (end_ - begin_ < header_bytes) break;
    Request request;
    if (!decode_request(input_.get() + begin_, terms_.requests.style, request)) {
      break_off("a request without its magic");
      pause = Pause::ended;
      break;
    }
    if (request.command() == Command::disconnect) {
      pause = Pause::ended;
      break;
    }
    const std::size_t before = begin_;
    pause = serve_one(request, header_bytes);
    if (pause != Pause::need_input) break;
    if (begin_ == before) break;  // its payload is not there yet
    // Sent while it is hot in the cache, and while the client can work on it.
    if (output_.bytes() >= OutputQueue::block_bytes) flush_output();
  }
  batch_ = {};
  return pause;
}

/// Consumes header and payload, or leaves begin_ alone when the payload is not there yet.
Session::Pause Session::serve_one(const Request& request, std::size_t header_bytes) {
  const Verdict verdict = judge(request, terms_.requests);
  if (verdict.disconnect) {
    break_off(std::string(verdict.text));
    return Pause::ended;
  }
  if (verdict.error != NbdErrno::none) {
    begin_ += header_bytes;
    if (verdict.payload_bytes == 0) {
      reply_error(request, verdict.error, verdict.text);
    } else {
      skip_bytes_ = verdict.payload_bytes;
      after_skip_ = error_reply(terms_.requests.style, request, verdict.error, verdict.text);
    }
    return Pause::need_input;
  }
  switch (request.command()) {
    case Command::read:
      begin_ += header_bytes;
      serve_read(request);
      return Pause::need_input;
    case Command::write: {
      const auto payload = buffered().subspan(header_bytes);
      if (payload.size() >= request.length) {
        begin_ += header_bytes + static_cast<std::size_t>(request.length);
        return serve_write(request, payload.first(static_cast<std::size_t>(request.length)));
      }
      if (request.length <= buffered_write_bytes_max) return Pause::need_input;
      begin_ += header_bytes;
      large_write_ = request;
      return Pause::large_write;
    }
    case Command::block_status: {
      if (!request.has(command_payload_len)) {
        begin_ += header_bytes;
        return serve_status(request, {});
      }
      if (verdict.payload_bytes > status_payload_bytes_max) {
        begin_ += header_bytes;
        skip_bytes_ = verdict.payload_bytes;
        after_skip_ =
            error_reply(terms_.requests.style, request, NbdErrno::inval, "too many contexts in the payload");
        return Pause::need_input;
      }
      const auto payload = buffered().subspan(header_bytes);
      if (payload.size() < verdict.payload_bytes) return Pause::need_input;
      begin_ += header_bytes + static_cast<std::size_t>(verdict.payload_bytes);
      return serve_status(request, payload.first(static_cast<std::size_t>(verdict.payload_bytes)));
    }
    default:
      begin_ += header_bytes;
      start(run_other(request, batch_), 0);
      return Pause::need_input;
  }
}

bool Session::read_in_place(const Request& request) {
  const ReplyStyle style = terms_.requests.style;
  const auto length = static_cast<std::size_t>(request.length);
  const std::size_t head = data_head_bytes(style);
  std::byte* at = output_.reserve(head + length);
  const std::span<std::byte> data{at + head, length};
  auto served = batch_.device().try_read(request.offset, data);
  if (!served) return false;
  if (!*served) {
    reply_error(request, served->error());
  } else if (style != ReplyStyle::simple && is_zero(data)) {
    output_.commit(put_hole(at, style, request, request.offset, static_cast<std::uint32_t>(length), true));
  } else {
    put_data_head(at, style, request, request.offset, static_cast<std::uint32_t>(length), true);
    output_.commit(head + length);
  }
  return true;
}

void Session::serve_read(const Request& request) {
  const auto length = static_cast<std::size_t>(request.length);
  if (length == 0) {
    // "The behaviour is unspecified, but the server SHOULD NOT disconnect": nothing was read, successfully.
    std::byte* at = output_.reserve(reply_header_bytes_max);
    output_.commit(terms_.requests.style == ReplyStyle::simple
                       ? put_simple(at, request.cookie, NbdErrno::none)
                       : put_chunk(at, terms_.requests.style, request, {.flags = chunk_done}));
    return;
  }
  if (length <= in_place_bytes_max) {
    if (!read_in_place(request)) start(run_read(request, {}, batch_), length);
    return;
  }
  Buffer buffer = context_.buffers.try_acquire(length);
  if (buffer && length <= inline_bytes_max) {
    if (auto served = batch_.device().try_read(request.offset, buffer.span())) {
      if (!*served) return reply_error(request, served->error());
      return reply_data(request, std::move(buffer));
    }
  }
  start(run_read(request, std::move(buffer), batch_), length);
}

Task<Result<void>> Session::run_read(Request request, Buffer buffer, Export::Hold hold) {
  const auto length = static_cast<std::size_t>(request.length);
  Result<void> result;
  if (!buffer) {
    auto lease = co_await acquire(length);
    if (lease) {
      buffer = *std::move(lease);
    } else {
      result = unexpected(std::move(lease).error());
    }
  }
  if (result) result = co_await hold.device().read(request.offset, buffer.span());
  hold = {};
  if (result) {
    reply_data(request, std::move(buffer));
  } else {
    reply_error(request, result.error());
  }
  request_done(length);
  co_return Result<void>{};
}

Session::Pause Session::serve_write(const Request& request, std::span<const std::byte> payload) {
  const bool fua = request.has(command_fua);
  if (payload.empty()) {
    if (fua) {
      start(run_other(request, batch_), 0);
    } else {
      reply_success(request);
    }
    return Pause::need_input;
  }
  if (!fua) {
    if (auto served = batch_.device().try_write(request.offset, payload)) {
      if (*served) {
        reply_success(request);
      } else {
        reply_error(request, served->error());
      }
      return Pause::need_input;
    }
  }
  Buffer copy = context_.buffers.try_acquire(payload.size());
  if (!copy) {
    // No memory now: the loop waits for it as for any payload that is too large to be buffered.
    begin_ -= payload.size();
    large_write_ = request;
    return Pause::large_write;
  }
  std::memcpy(copy.data(), payload.data(), payload.size());
  start(run_write(request, std::move(copy), batch_), payload.size());
  return Pause::need_input;
}

void Session::finish_large_write(const Request& request, Buffer payload) {
  Export::Hold hold = export_->hold();
  if (!request.has(command_fua) && payload.size() <= inline_bytes_max) {
    if (auto served = hold.device().try_write(request.offset, payload.span())) {
      if (!*served) return reply_error(request, served->error());
      return reply_success(request);
    }
  }
  const std::size_t length = payload.size();
  start(run_write(request, std::move(payload), std::move(hold)), length);
}

Task<Result<void>> Session::run_write(Request request, Buffer payload, Export::Hold hold) {
  const auto result =
      co_await hold.device().write(request.offset, payload.span(), {.fua = request.has(command_fua)});
  hold = {};
  const std::size_t length = payload.size();
  payload.reset();
  if (result) {
    reply_success(request);
  } else {
    reply_error(request, result.error());
  }
  request_done(length);
  co_return Result<void>{};
}

namespace {
Task<Result<void>> carry_out(Request request, BlockDevice& device) {
  const Range range{request.offset, request.length};
  const bool fua = request.has(command_fua);
  switch (request.command()) {
    case Command::flush:
      // Nothing of a read-only device can be volatile because of us.
      if (device.info().is_read_only) co_return Result<void>{};
      co_return co_await device.flush();
    case Command::cache:
      if (range.empty()) co_return Result<void>{};
      co_return co_await device.prefetch(range);
    case Command::trim: {
      if (!range.empty()) DISKFERRY_CO_CHECK(co_await device.discard(range));
      if (fua) co_return co_await device.flush();
      co_return Result<void>{};
    }
    case Command::write_zeroes:
      co_return co_await device.write_zeroes(range, {.may_unmap = !request.has(command_no_hole),
                                                     .fast_only = request.has(command_fast_zero),
                                                     .fua = fua});
    case Command::write:  // of nothing, with FUA
      co_return co_await device.flush();
    default:
      co_return unexpected(fail(ErrorKind::internal, "serve request"));
  }
}
}  // namespace

Task<Result<void>> Session::run_other(Request request, Export::Hold hold) {
  const auto result = co_await carry_out(request, hold.device());
  hold = {};
  if (result) {
    reply_success(request);
  } else {
    reply_error(request, result.error());
  }
  request_done(0);
  co_return Result<void>{};
}

Session::Pause Session::serve_status(const Request& request, std::span<const std::byte> payload) {
  Request effective = request;
  std::vector<std::uint32_t> ids;
  for (const Context& context : terms_.contexts) ids.push_back(context.id);
  if (!payload.empty()) {
    StatusFilter filter;
    if (!decode_status_filter(payload, ids, filter)) {
      reply_error(request, NbdErrno::inval, "the payload names contexts that were not selected, or twice");
      return Pause::need_input;
    }
    effective.length = filter.length;
    ids = std::move(filter.ids);
    effective.flags &= static_cast<std::uint16_t>(~command_payload_len);
    const Verdict verdict = judge(effective, terms_.requests);
    if (verdict.error != NbdErrno::none) {
      reply_error(request, verdict.error, verdict.text);
      return Pause::need_input;
    }
  }
  status_bytes_in_flight_ += status_bytes_max(effective, ids.size());
  start(run_status(effective, std::move(ids), batch_), 0);
  return Pause::need_input;
}

Task<Result<std::vector<StatusRun>>> Session::gather_status(const Context& of, Range range, bool one,
                                                            BlockDevice& device) {
  const std::size_t runs_max = one ? 1 : context_.limits.extents_per_reply_max;
  std::vector<StatusRun> runs;
  for (unsigned calls = 0; calls < status_calls_max && !range.empty(); ++calls) {
    std::vector<StatusRun> found;
    if (of.kind == Context::Kind::bitmap) {
      DISKFERRY_CO_TRY(const auto ranges, co_await of.bitmap->ranges(range, runs_max + 1 - runs.size() + 1));
      found = status_runs(ranges);
    } else {
      DISKFERRY_CO_TRY(const auto extents, co_await device.extents(range, runs_max + 1 - runs.size() + 1));
      found = status_runs(of.kind, extents);
    }
    for (const StatusRun& run : found) {
      range.offset += run.length;
      range.length -= std::min(range.length, run.length);
      if (!runs.empty() && runs.back().status == run.status) {
        runs.back().length += run.length;
      } else if (runs.size() == runs_max) {
        co_return runs;
      } else {
        runs.push_back(run);
      }
    }
    if (found.empty()) break;
  }
  if (runs.empty())
    co_return unexpected(fail(ErrorKind::internal, "report status").why("the device said nothing"));
  co_return runs;
}

/// What an answer may take. It counts against the output's bound while it is made, or a client that asks and
/// never reads would have as many long answers as it may have requests.
std::size_t Session::status_bytes_max(const Request& request, std::size_t contexts) const {
  const std::uint64_t runs = request.has(command_req_one)
                                 ? 1
                                 : std::min<std::uint64_t>(context_.limits.extents_per_reply_max,
                                                           request.length / status_grain_bytes + 1);
  return contexts * static_cast<std::size_t>(runs) * sizeof(StatusRun);
}

Task<Result<void>> Session::run_status(Request request, std::vector<std::uint32_t> ids, Export::Hold hold) {
  const Range range{request.offset, request.length};
  const std::size_t reserved = status_bytes_max(request, ids.size());
  std::vector<std::vector<std::byte>> chunks;
  std::optional<Error> error;
  for (std::size_t i = 0; i < ids.size() && !error; ++i) {
    const auto context = std::ranges::find(terms_.contexts, ids[i], &Context::id);
    DISKFERRY_ASSERT(context != terms_.contexts.end(), "ids were checked");
    auto runs = co_await gather_status(*context, range, request.has(command_req_one), hold.device());
    if (runs) {
      chunks.push_back(status_reply(terms_.requests.style, request, context->id, *runs, i + 1 == ids.size()));
    } else {
      error = std::move(runs).error();
    }
  }
  hold = {};
  if (error) {
    reply_error(request, *error);
  } else {
    for (const auto& chunk : chunks) output_.append(chunk);
  }
  status_bytes_in_flight_ -= reserved;
  request_done(0);
  co_return Result<void>{};
}

}  // namespace diskferry::nbd_server
