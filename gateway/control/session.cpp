// A connection's life: read a request, answer it, and again.
#include "gateway/control/session.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/json.hpp"
#include "gateway/control/status.hpp"

#include <array>
#include <fmt/format.h>
#include <optional>

namespace diskferry::control {
namespace {

/// Counts up while it lives.
class Counted {
 public:
  explicit Counted(std::atomic<std::size_t>& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<std::size_t>& count_;
};

class Session {
 public:
  Session(SessionContext& context, ByteStream& stream, Caller caller)
      : context_(context), stream_(stream), caller_(std::move(caller)), reader_(stream, context.limits) {}

  Task<Result<void>> run() {
    while (!context_.stopping.load()) {
      auto request = co_await with_deadline(context_.clock, context_.limits.request_time, "read request",
                                            reader_.read_request());
      if (!request) co_return co_await refuse(std::move(request).error());
      if (!*request) co_return Result<void>{};
      const Counted handling(context_.handling);
      const bool keep_alive = (*request)->keep_alive;
      const std::string asked =
          (*request)->method == "GET" ? std::string() : (*request)->method + " " + (*request)->target;
      DISKFERRY_CO_TRY(Answer given, co_await handle(std::move(**request)));
      if (!asked.empty() && context_.changed)
        context_.changed(printable(fmt::format("{}: {}: {}", caller_.name, asked.substr(0, asked.find('?')),
                                               given.response.status)));
      if (given.events) co_return co_await stream_events(std::move(given));
      given.response.keep_alive = keep_alive && !context_.stopping.load();
      DISKFERRY_CO_CHECK(co_await say(given.response));
      if (!given.response.keep_alive) break;
    }
    stream_.say_goodbye();
    co_return Result<void>{};
  }

 private:
  Task<Result<Answer>> try_handle(HttpRequest request) {
    Answer given = co_await context_.responder.answer(std::move(request), caller_);
    // What was done all the same is told; what was given up is told by whoever gave it up.
    if (given.response.status == status_of(ErrorKind::cancelled) && co_await is_cancelled())
      co_return unexpected(cancelled_error("handle request"));
    co_return given;
  }
  /// Errors: cancelled.
  Task<Result<Answer>> handle(HttpRequest request) {
    auto given = co_await with_deadline(context_.clock, context_.limits.handle_time, "handle request",
                                        try_handle(std::move(request)));
    if (given) co_return std::move(*given);
    if (co_await is_cancelled()) co_return unexpected(std::move(given).error());
    co_return Answer{.response = to_response(given.error())};
  }

  /// What cannot be read is answered where there is somebody to answer, and ends the connection: nobody knows
  /// where the next request would begin.
  Task<Result<void>> refuse(Error error) {
    const bool is_idle = error.kind() == ErrorKind::timed_out && !reader_.has_partial();
    if (error.kind() == ErrorKind::cancelled || error.kind() == ErrorKind::gone) co_return unexpected(error);
    if (is_idle) co_return Result<void>{};
    HttpResponse response = to_response(error);
    if (error.kind() == ErrorKind::timed_out) response.status = 408;
    if (error.kind() == ErrorKind::too_large) response.status = reader_.over_limit_status();
    response.keep_alive = false;
    DISKFERRY_CO_CHECK(co_await say(response));
    (void)co_await part_from(stream_, context_.clock, context_.limits);
    co_return unexpected(std::move(error));
  }

  Task<Result<void>> say(HttpResponse response) {
    response.headers = context_.headers;
    co_return co_await write(to_wire(response));
  }
  /// `text` by value: it lives until it was written.
  Task<Result<void>> write(std::string text) {
    co_return co_await with_deadline(context_.clock, context_.limits.write_time, "answer",
                                     stream_.write(std::as_bytes(std::span(text))));
  }

  Task<Result<void>> stream_events(Answer given) {
    const Counted streaming(context_.event_streams);
    if (context_.event_streams.load() > context_.limits.event_streams_max) {
      HttpResponse response =
          to_response(fail(ErrorKind::too_large, "listen to events").why("too many clients listen already"));
      response.status = 503;
      response.keep_alive = false;
      co_return co_await say(std::move(response));
    }
    // It does not end by itself: a shutdown must not wait for it as for a request.
    --context_.handling;
    auto result = co_await send_events(*given.events, given.event_format);
    ++context_.handling;
    if (result) stream_.say_goodbye();
    co_return result;
  }
  Task<Result<void>> send_events(EventSource& events, EventFormat format) {
    const bool is_for_browsers = format == EventFormat::server_sent;
    const std::string_view begin = is_for_browsers ? "data: " : "";
    const std::string_view end = is_for_browsers ? "\n\n" : "\n";
    DISKFERRY_CO_CHECK(co_await write(
        chunked_head(is_for_browsers ? "text/event-stream" : "application/x-ndjson", context_.headers)));
    while (true) {
      DISKFERRY_CO_TRY(const auto batch, co_await events.next(context_.limits.heartbeat_time));
      std::string lines;
      for (const JobEvent& event : batch.events) lines += fmt::format("{}{}{}", begin, to_json(event), end);
      if (lines.empty() && !batch.ended) lines = fmt::format("{}{}{}", begin, R"({"kind":"heartbeat"})", end);
      if (!lines.empty()) DISKFERRY_CO_CHECK(co_await write(to_chunk(lines)));
      if (batch.ended) co_return co_await write(std::string(last_chunk));
      if (stream_.is_disturbed() || co_await is_cancelled()) co_return Result<void>{};
    }
  }

  SessionContext& context_;
  ByteStream& stream_;
  const Caller caller_;
  HttpReader reader_;
};

/// Until the client ends, too.
Task<Result<void>> discard(ByteStream& stream, std::size_t bytes_max) {
  std::array<std::byte, 4096> scratch;
  for (std::size_t discarded = 0; discarded < bytes_max;) {
    DISKFERRY_CO_TRY(const std::size_t got, co_await stream.read_some(scratch));
    if (got == 0) break;
    discarded += got;
  }
  co_return Result<void>{};
}

}  // namespace

Task<Result<void>> part_from(ByteStream& stream, Clock& clock, const Limits& limits) {
  stream.say_goodbye();
  co_return co_await with_deadline(clock, limits.linger_time, "part from client",
                                   discard(stream, limits.linger_bytes_max));
}

Task<Result<void>> run_session(SessionContext& context, ByteStream& stream, Caller caller) {
  Session session(context, stream, std::move(caller));
  co_return co_await session.run();
}

}  // namespace diskferry::control
