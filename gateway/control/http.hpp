// HTTP/1.1 as far as the control API speaks it: messages as values, read from and written to a connection.
// Parsing is Boost.Beast's, bounded by Limits; no other file knows it.
#pragma once

#include "gateway/control/byte_stream.hpp"
#include "gateway/control/limits.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace diskferry::control {

struct HttpRequest {
  std::string method{};  ///< "GET", "POST", "DELETE", or what else the client said
  std::string target{};  ///< as sent: "/v1/jobs?active=true"
  std::string host{};    ///< what the client calls us; empty where it said nothing, or said it twice
  std::string body{};
  bool keep_alive = true;
};
struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string allow{};         ///< methods, with status 405
  std::string_view headers{};  ///< further lines, each with its end; a text that is always there
  std::string body{};
  bool is_head_only = false;  ///< the length of the body is told, and it is not sent
  bool keep_alive = true;
};

/// "Not Found".
std::string_view reason_of(unsigned status) noexcept;

// As bytes for the wire. `host` is what the client calls the server.
std::string to_wire(const HttpRequest& request, std::string_view host);
std::string to_wire(const HttpResponse& response);
/// The head of a chunked answer, its parts, and its end. `headers` as those of a response.
std::string chunked_head(std::string_view content_type, std::string_view headers = {});
std::string to_chunk(std::string_view part);
inline constexpr std::string_view last_chunk = "0\r\n\r\n";

/// Reads messages from one connection, one after the other; keeps what came after one for the next.
/// Thread: one task at a time. Lifetime: the stream outlives it.
class HttpReader {
 public:
  HttpReader(ByteStream& stream, const Limits& limits);
  ~HttpReader();
  HttpReader(const HttpReader&) = delete;
  HttpReader& operator=(const HttpReader&) = delete;

  /// nullopt: the client left between two requests. Answers "Expect: 100-continue" on its own. Errors:
  /// invalid_argument (not HTTP), too_large (header or body; see over_limit_status()), gone, cancelled.
  Task<Result<std::optional<HttpRequest>>> read_request();
  /// 431 or 413 after read_request() failed with too_large.
  unsigned over_limit_status() const noexcept;
  /// True while a part of a message is there: the other end has begun to speak.
  bool has_partial() const noexcept;

  /// The whole answer to a request. Errors: protocol, too_large, gone (also when there was no answer).
  Task<Result<HttpResponse>> read_response();

  /// The head of an answer whose body is read line by line. Errors: as read_response().
  Task<Result<HttpResponse>> read_head();
  /// The next line without its end, at most Limits::event_bytes_max; nullopt at the end of the body.
  Task<Result<std::optional<std::string>>> read_line();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::control
