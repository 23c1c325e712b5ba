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
  peer,     ///< another gateway: who are you, and the disks of moves
  operate,  ///< everything
};
struct Caller {
  std::string name{};  ///< for the log: "uid 0", or the name of a certificate
  Rights rights = Rights::peer;
};

struct Answer {
  HttpResponse response{};
  std::unique_ptr<EventSource> events{};  ///< set: the answer is a stream of these
};

/// Never fails: what goes wrong is an answer.
Task<Answer> answer(GatewayApi& api, const Limits& limits, HttpRequest request, Caller caller);
/// The answer that tells an error.
HttpResponse to_response(const Error& error);

}  // namespace diskferry::control
