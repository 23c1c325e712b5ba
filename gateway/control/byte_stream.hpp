// A connection that HTTP is spoken over: a socket, TLS over one, or the two pipes of a program that carries
// bytes elsewhere (ssh). Used by the control server and its client.
#pragma once

#include "diskferry/task.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace diskferry::control {

/// Thread: one task at a time, on the executor it was made for.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  /// At least one byte; 0 when the other end has closed. Errors: gone, protocol (TLS), cancelled.
  virtual Task<Result<std::size_t>> read_some(std::span<std::byte> into) = 0;
  /// All of it. Errors: gone, protocol (TLS), cancelled.
  virtual Task<Result<void>> write(std::span<const std::byte> from) = 0;
  /// True when the other end has closed, or has sent something that nobody asked for: a connection that was
  /// kept is no good then. Never waits.
  virtual bool is_disturbed() = 0;
  /// Tells the other end that nothing more comes; best effort, never waits.
  virtual void say_goodbye() = 0;
  /// Whom the other end's certificate names; empty where it showed none.
  virtual std::string peer_name() const { return {}; }
};

}  // namespace diskferry::control
