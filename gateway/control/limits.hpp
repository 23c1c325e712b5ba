// Every bound of the control API, by name. What a peer sends is measured against these and nothing else.
#pragma once

#include "diskferry/clock.hpp"

#include <cstddef>
#include <cstdint>

namespace diskferry::control {

struct Limits {
  std::size_t header_bytes_max = 16u << 10;
  std::size_t body_bytes_max = 1u << 20;
  /// Nesting of JSON in a request.
  std::size_t json_depth_max = 16;
  /// Connections at once on the UNIX socket, and as many again over TCP: strangers there, who have not proved
  /// anything yet, cannot keep the operator of this host out.
  std::size_t connections_max = 64;
  /// Of them, those that listen to events: the others stay for commands.
  std::size_t event_streams_max = 32;
  Duration tls_handshake_time = std::chrono::seconds(10);
  /// From the end of an answer (or the connection's begin) to the last byte of the next request. One deadline
  /// for the whole, so that a client that sends a byte now and then gains nothing.
  Duration request_time = std::chrono::seconds(30);
  /// For an answer, and for a part of an event stream, to be taken by the client.
  Duration write_time = std::chrono::seconds(30);
  /// For the gateway to do what was asked.
  Duration handle_time = std::chrono::seconds(120);
  /// An event stream says something at least this often, so that both ends notice when the other is gone.
  Duration heartbeat_time = std::chrono::seconds(5);
  /// What a client that was refused may still send while it reads why: a socket that is closed with something
  /// unread in it takes the answer away from the other end.
  Duration linger_time = std::chrono::seconds(1);
  std::size_t linger_bytes_max = 4u << 20;
  /// What a shutdown waits for requests that are being handled.
  Duration drain_time = std::chrono::seconds(10);
  /// Idle TCP connections are probed after this long.
  Duration keepalive_time = std::chrono::seconds(60);

  // The client's side.
  std::size_t answer_bytes_max = 16u << 20;
  std::size_t event_bytes_max = 1u << 20;
  /// A kept connection that was idle for longer is not used again: the server is about to close it.
  Duration idle_connection_time = std::chrono::seconds(20);
  /// A stream of events that is silent for longer is gone: three heartbeats.
  Duration event_silence_time = std::chrono::seconds(15);
};

}  // namespace diskferry::control
