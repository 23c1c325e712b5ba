// The events of a gateway elsewhere, read from their stream. For client.cpp.
#pragma once

#include "gateway/control/api.hpp"
#include "gateway/control/http.hpp"

#include <memory>

namespace diskferry::control {

/// Takes a connection whose request for events was sent; `reader` has read the head of the answer.
std::unique_ptr<EventSource> make_remote_events(Clock& clock, const Limits& limits,
                                                std::unique_ptr<ByteStream> stream,
                                                std::unique_ptr<HttpReader> reader);

}  // namespace diskferry::control
