// HTTP messages over Beast's incremental parser: bytes are put in as they come, at most one buffer at a time.
#include "gateway/control/http.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>

#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace diskferry::control {
namespace http = boost::beast::http;
namespace {
/// "0", an empty line, and the one that ends the message.
constexpr std::size_t last_chunk_bytes = std::string_view("0\r\n\r\n").size();

using RequestParser = http::request_parser<http::string_body>;
using ResponseParser = http::response_parser<http::string_body>;

/// What is received at once. Larger than any header, which the parser wants in one piece.
constexpr std::size_t input_bytes = 32u << 10;

constexpr std::string_view continue_text = "HTTP/1.1 100 Continue\r\n\r\n";

Error bad_message(const boost::system::error_code& error, ErrorKind kind) {
  return fail(kind, "read HTTP message").why(error.message());
}

}  // namespace

std::string_view reason_of(unsigned status) noexcept {
  const auto text = http::obsolete_reason(http::int_to_status(status));
  return {text.data(), text.size()};
}

std::string to_wire(const HttpRequest& request, std::string_view host) {
  std::string text = fmt::format(
      "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: diskferry/{}\r\nAccept: application/json\r\n"
      "Connection: {}\r\n",
      request.method, request.target, host, DISKFERRY_VERSION, request.keep_alive ? "keep-alive" : "close");
  if (!request.body.empty())
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", request.body.size());
  return text + "\r\n" + request.body;
}

std::string to_wire(const HttpResponse& response) {
  std::string text =
      fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
                  response.status, reason_of(response.status), response.content_type, response.body.size());
  if (!response.allow.empty()) text += fmt::format("Allow: {}\r\n", response.allow);
  text += response.headers;
  text += fmt::format("Connection: {}\r\n\r\n", response.keep_alive ? "keep-alive" : "close");
  return response.is_head_only ? text : text + response.body;
}

std::string chunked_head(std::string_view content_type, std::string_view headers) {
  return fmt::format(
      "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n"
      "{}Connection: close\r\n\r\n",
      content_type, headers);
}

std::string to_chunk(std::string_view part) {
  return fmt::format("{:x}\r\n{}\r\n", part.size(), part);
}

struct HttpReader::State {
  ByteStream& stream;
  const Limits& limits;
  std::array<char, input_bytes> input{};
  std::size_t begin = 0;
  std::size_t end = 0;
  unsigned over_limit = 0;
  bool in_message = false;                   // something of a request is there
  std::optional<ResponseParser> response{};  // of a body that is read line by line

  bool is_starved = false;  ///< the parser wanted more than it was given
  std::size_t waiting() const { return end - begin; }
  Task<Result<std::size_t>> receive();
  template <class Parser>
  Result<bool> feed(Parser& parser, ErrorKind kind);
  Result<void> finish(ResponseParser& parser);
  Task<Result<bool>> advance(ResponseParser& parser);
};

/// More bytes behind those that wait; 0 at the end.
Task<Result<std::size_t>> HttpReader::State::receive() {
  if (begin != 0) {
    std::copy(input.begin() + static_cast<std::ptrdiff_t>(begin),
              input.begin() + static_cast<std::ptrdiff_t>(end), input.begin());
    end -= begin;
    begin = 0;
  }
  if (end == input.size())
    co_return unexpected(fail(ErrorKind::too_large, "read HTTP message").why("the header is too long"));
  DISKFERRY_CO_TRY(const std::size_t got,
                   co_await stream.read_some(std::as_writable_bytes(std::span(input)).subspan(end)));
  end += got;
  co_return got;
}

/// Gives the parser what waits; true when the message is complete.
template <class Parser>
Result<bool> HttpReader::State::feed(Parser& parser, ErrorKind kind) {
  while (waiting() != 0 && !parser.is_done()) {
    // Asked again between the last chunk and the end of the message, Beast asserts that all of it is there.
    if (is_starved && parser.is_header_done() && parser.chunked() && waiting() < last_chunk_bytes) break;
    boost::system::error_code error;
    const std::size_t used = parser.put(boost::asio::const_buffer(input.data() + begin, waiting()), error);
    begin += used;
    is_starved = error == http::error::need_more;
    if (is_starved) break;
    if (error == http::error::header_limit || error == http::error::body_limit) {
      over_limit = error == http::error::header_limit ? 431 : 413;
      return unexpected(bad_message(error, ErrorKind::too_large));
    }
    if (error) return unexpected(bad_message(error, kind));
    if (used == 0) break;
  }
  return parser.is_done();
}

HttpReader::HttpReader(ByteStream& stream, const Limits& limits)
    : state_(new State{.stream = stream, .limits = limits}) {}
HttpReader::~HttpReader() = default;

unsigned HttpReader::over_limit_status() const noexcept {
  return state_->over_limit != 0 ? state_->over_limit : 413;
}
bool HttpReader::has_partial() const noexcept {
  return state_->in_message;
}

Task<Result<std::optional<HttpRequest>>> HttpReader::read_request() {
  State& state = *state_;
  RequestParser parser;
  parser.eager(true);
  parser.header_limit(static_cast<std::uint32_t>(state.limits.header_bytes_max));
  parser.body_limit(state.limits.body_bytes_max);
  bool told_to_continue = false;
  state.in_message = state.waiting() != 0;
  while (true) {
    DISKFERRY_CO_TRY(const bool done, state.feed(parser, ErrorKind::invalid_argument));
    if (done) break;
    if (parser.is_header_done() && !told_to_continue && parser.get()[http::field::expect] == "100-continue") {
      told_to_continue = true;
      DISKFERRY_CO_CHECK(co_await state.stream.write(std::as_bytes(std::span(continue_text))));
    }
    DISKFERRY_CO_TRY(const std::size_t got, co_await state.receive());
    if (got == 0 && !state.in_message) co_return std::nullopt;
    state.in_message = true;
    if (got != 0) continue;
    co_return unexpected(
        fail(ErrorKind::gone, "read HTTP message").why("the client left in the middle of it"));
  }
  state.in_message = false;
  auto& message = parser.get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  if (message.count(http::field::host) == 1) request.host = std::string(message[http::field::host]);
  request.keep_alive = message.keep_alive();
  request.body = std::move(message.body());
  co_return request;
}

Result<void> HttpReader::State::finish(ResponseParser& parser) {
  boost::system::error_code error;
  if (parser.got_some()) parser.put_eof(error);
  if (!parser.got_some() || error || !parser.is_done())
    return unexpected(fail(ErrorKind::gone, "read HTTP message").why("the gateway closed the connection"));
  return {};
}

/// One step of an answer; true when it is complete.
Task<Result<bool>> HttpReader::State::advance(ResponseParser& parser) {
  DISKFERRY_CO_TRY(bool done, feed(parser, ErrorKind::protocol));
  if (done) co_return true;
  DISKFERRY_CO_TRY(const std::size_t got, co_await receive());
  if (got == 0) {
    DISKFERRY_CO_CHECK(finish(parser));
    co_return true;
  }
  DISKFERRY_CO_TRY(done, feed(parser, ErrorKind::protocol));
  co_return done;
}

namespace {
HttpResponse to_response(const ResponseParser& parser) {
  HttpResponse response;
  response.status = parser.get().result_int();
  response.content_type = std::string(parser.get()[http::field::content_type]);
  response.keep_alive = parser.get().keep_alive();
  return response;
}
}  // namespace

Task<Result<HttpResponse>> HttpReader::read_response() {
  ResponseParser parser;
  parser.eager(true);
  parser.header_limit(static_cast<std::uint32_t>(state_->limits.header_bytes_max));
  parser.body_limit(state_->limits.answer_bytes_max);
  while (true) {
    DISKFERRY_CO_TRY(const bool done, co_await state_->advance(parser));
    if (done) break;
  }
  HttpResponse response = to_response(parser);
  response.body = std::move(parser.get().body());
  co_return response;
}

Task<Result<HttpResponse>> HttpReader::read_head() {
  ResponseParser& parser = state_->response.emplace();
  parser.eager(true);
  parser.header_limit(static_cast<std::uint32_t>(state_->limits.header_bytes_max));
  parser.body_limit(boost::none);
  while (!parser.is_header_done()) DISKFERRY_CO_CHECK(co_await state_->advance(parser));
  HttpResponse response = to_response(parser);
  if (response.status == 200) co_return response;
  while (!parser.is_done()) {
    DISKFERRY_CO_CHECK(co_await state_->advance(parser));
    if (parser.get().body().size() > state_->limits.answer_bytes_max)
      co_return unexpected(fail(ErrorKind::too_large, "read HTTP message").why("the answer is too long"));
  }
  response.body = std::move(parser.get().body());
  co_return response;
}

Task<Result<std::optional<std::string>>> HttpReader::read_line() {
  ResponseParser& parser = *state_->response;
  std::string& body = parser.get().body();
  std::size_t searched = 0;
  while (true) {
    if (const auto at = body.find('\n', searched); at != std::string::npos) {
      std::string line = body.substr(0, at);
      body.erase(0, at + 1);
      co_return line;
    }
    searched = body.size();
    if (parser.is_done()) co_return std::nullopt;
    if (body.size() > state_->limits.event_bytes_max)
      co_return unexpected(fail(ErrorKind::too_large, "read event").why("a line of it is too long"));
    DISKFERRY_CO_CHECK(co_await state_->advance(parser));
  }
}

}  // namespace diskferry::control
