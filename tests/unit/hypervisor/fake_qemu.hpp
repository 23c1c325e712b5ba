// A monitor of QEMU's for tests: a UNIX socket with one client, and a thread that behaves as its test says.
#pragma once

#include "tests/support/test_runtime.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

namespace diskferry::test {

/// One client's connection, on the fake's thread.
class FakeQemuClient {
 public:
  explicit FakeQemuClient(int fd) : fd_(fd) {}
  /// Sends; what a client that has gone does not take is dropped.
  void send(std::string_view text) const;
  void greet() const;
  /// The next command: its number, and its name in `name`. 0 where the client has gone.
  std::uint64_t next(std::string& name);
  /// Reads a command, whatever it is, and answers it with an empty object.
  void answer_next();
  void reply(std::uint64_t id, std::string_view json = "{}") const;
  /// Greets and agrees to the client's capabilities.
  void begin();
  /// Waits until the client has gone.
  void wait_for_end();

 private:
  int fd_;
  std::string unread_;
};

class FakeQemu {
 public:
  /// `behave` is called with the first client; the connection ends when it returns.
  explicit FakeQemu(std::function<void(FakeQemuClient&)> behave);
  ~FakeQemu();
  std::string socket() const { return folder_ / "qmp"; }

 private:
  TemporaryFolder folder_;
  int listener_;
  std::jthread thread_;
};

}  // namespace diskferry::test
