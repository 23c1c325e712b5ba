// From a request to a call of the API and back to an answer: one table of methods, paths and who may. Knows
// nothing of connections; session.cpp calls it.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/control/http.hpp"

#include <memory>
#include <string>

namespace diskferry::control {

/// What a caller may do, each including those before it.
enum class Rights : std::uint8_t {
  look,     ///< what web.hpp serves
  peer,     ///< another gateway: who are you, and the disks of moves
  operate,  ///< everything
};
/// How a stream of events is written.
enum class EventFormat : std::uint8_t {
  lines,       ///< one JSON object a line
  server_sent  ///< as browsers take them (HTML Standard, "Server-sent events")
};
struct Caller {
  std::string name{};  ///< for the log: "uid 0", or the name of a certificate
  Rights rights = Rights::peer;
};

struct Answer {
  HttpResponse response{};
  std::unique_ptr<EventSource> events{};  ///< set: the answer is a stream of these
  EventFormat event_format = EventFormat::lines;
};

/// What answers the requests of a session. Thread: any, many at once.
class Responder {
 public:
  virtual ~Responder() = default;
  /// Never fails: what goes wrong is an answer.
  virtual Task<Answer> answer(HttpRequest request, Caller caller) = 0;
};

/// The whole API. Lifetime: of what it is made of.
class ApiResponder final : public Responder {
 public:
  ApiResponder(GatewayApi& api, const Limits& limits) : api_(api), limits_(limits) {}
  Task<Answer> answer(HttpRequest request, Caller caller) override;

 private:
  GatewayApi& api_;
  const Limits& limits_;
};

/// Never fails: what goes wrong is an answer.
Task<Answer> answer(GatewayApi& api, const Limits& limits, HttpRequest request, Caller caller);
/// The answer that tells an error.
HttpResponse to_response(const Error& error);

}  // namespace diskferry::control
