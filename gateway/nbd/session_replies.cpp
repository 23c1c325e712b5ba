// A session's replies: built into the output queue, gathered, and sent with as few calls as possible.
#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/nbd/session.hpp"

#include <array>

#include <boost/asio/post.hpp>

namespace diskferry::nbd_server {
namespace {
/// Holes inside a large read are told apart at this grain.
constexpr std::size_t hole_grain_bytes = 64u << 10;
}  // namespace

void Session::reply_success(const Request& request) {
  std::byte* at = output_.reserve(reply_header_bytes_max);
  output_.commit(put_success(at, terms_.requests.style, request));
}

void Session::reply_error(const Request& request, NbdErrno error, std::string_view text) {
  // ESHUTDOWN would be taken for an I/O error of the disk: whoever must stop closes the connection instead.
  if (error == NbdErrno::shutdown) return break_off("a request was cancelled");
  output_.append(error_reply(terms_.requests.style, request, error, text));
}

void Session::reply_error(const Request& request, const Error& error) {
  reply_error(request, row_of(error.kind()).nbd, printable(error.message()));
}

void Session::reply_data(const Request& request, Buffer buffer) {
  const ReplyStyle style = terms_.requests.style;
  const std::span<const std::byte> data = std::as_const(buffer).span().first(request.length);
  const auto put_data = [&](std::size_t from, std::size_t length, bool is_last) {
    std::byte* at = output_.reserve(reply_header_bytes_max);
    output_.commit(put_data_head(at, style, request, request.offset + from,
                                 static_cast<std::uint32_t>(length), is_last));
  };
  if (style == ReplyStyle::simple || request.has(command_df)) {
    put_data(0, data.size(), true);
    output_.append(std::move(buffer), data);
    return;
  }
  // Runs of zeros become holes: the client is told, and the wire spared.
  std::size_t at = 0;
  while (at < data.size()) {
    const auto length_of_grain = [&](std::size_t from) {
      return std::min(data.size() - from, hole_grain_bytes - static_cast<std::size_t>(
                                                                 (request.offset + from) % hole_grain_bytes));
    };
    const bool zero = is_zero(data.subspan(at, length_of_grain(at)));
    std::size_t end = at + length_of_grain(at);
    while (end < data.size() && is_zero(data.subspan(end, length_of_grain(end))) == zero)
      end += length_of_grain(end);
    const bool is_last = end == data.size();
    if (zero) {
      std::byte* head = output_.reserve(extended_header_bytes + 12);
      output_.commit(
          put_hole(head, style, request, request.offset + at, static_cast<std::uint32_t>(end - at), is_last));
    } else {
      put_data(at, end - at, is_last);
      if (is_last) {
        output_.append(std::move(buffer), data.subspan(at, end - at));
        return;
      }
      output_.append_part(data.subspan(at, end - at));
    }
    at = end;
  }
  // The last chunk was a hole: the buffer stays until what was taken from it is sent.
  output_.keep(std::move(buffer));
}

void Session::start(Task<Result<void>> task, std::size_t bytes) {
  ++in_flight_;
  bytes_in_flight_ += bytes;
  requests_.spawn(std::move(task));
}

void Session::request_done(std::size_t bytes) {
  --in_flight_;
  bytes_in_flight_ -= bytes;
  if (broken_) output_.clear();
  flush_soon();
  notify_progress();
}

void Session::flush_soon() {
  if (flush_posted_ || write_blocked_ || broken_) return;
  flush_posted_ = true;
  boost::asio::post(executor_, [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->flush_output();
  });
}

void Session::flush_output() {
  std::array<iovec, OutputQueue::iovecs_max> iovecs;
  while (!write_blocked_ && !broken_ && (!output_.empty() || stream_->has_pending())) {
    const auto sent = stream_->write_some(output_.gather(iovecs));
    if (sent.status == Stream::Status::failed) return break_off(stream_->problem());
    output_.sent(sent.bytes);
    if (sent.status == Stream::Status::would_block || stream_->has_pending()) {
      start_to_hold(write_blocked_);
      senders_.spawn(drain_output());
    }
  }
}

Task<Result<void>> Session::drain_output() {
  const auto self = shared_from_this();
  std::array<iovec, OutputQueue::iovecs_max> iovecs;
  if (!write_blocked_) start_to_hold(write_blocked_);
  while (!broken_ && (!output_.empty() || stream_->has_pending())) {
    if (!co_await stream_->wait_writable() && co_await is_cancelled()) break;
    if (broken_) break;
    const auto sent = stream_->write_some(output_.gather(iovecs));
    if (sent.status == Stream::Status::failed) {
      break_off(stream_->problem());
      break;
    }
    moved(sent.bytes);
    output_.sent(sent.bytes);
    notify_progress();
  }
  write_blocked_ = false;
  notify_progress();
  co_return Result<void>{};
}

}  // namespace diskferry::nbd_server
