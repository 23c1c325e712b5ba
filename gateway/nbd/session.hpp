// One client, from accept to close. Everything of a session happens on one reactor: the loop that parses what
// one receive brought and serves it at once where the device can, the tasks of requests that must wait, and
// the sending of replies. It never looks at another session, and holds bounded memory whatever its client
// does.
#pragma once

#include "diskferry/buffer.hpp"
#include "diskferry/clock.hpp"
#include "diskferry/task_group.hpp"
#include "gateway/nbd/handshake.hpp"
#include "gateway/nbd/limits.hpp"
#include "gateway/nbd/output_queue.hpp"
#include "gateway/nbd/stream.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

namespace diskferry::nbd_server {

/// What sessions of a server share. Lifetime: outlives them.
struct SessionContext {
  const ExportTable& exports;
  const Limits& limits;
  std::shared_ptr<TlsContext> tls;  ///< null when no session has TLS
  BufferPool& buffers;
  Clock& clock;
};

struct SessionOptions {
  Executor executor;  ///< one reactor; everything of the session happens there
  TlsMode tls_mode = TlsMode::off;
  bool direct_tls = false;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(SessionContext& context, std::unique_ptr<Stream> stream, SessionOptions options);
  ~Session();

  /// The whole conversation, on the session's executor. Never fails because of the client: returns its error
  /// for the log (protocol, gone, timed_out, permission), nothing when the client left in peace.
  Task<Result<void>> run();
  /// Takes no more requests; run() ends when what is in flight has been answered. Thread: any.
  void stop();
  /// The export it is in; null before. Thread: any.
  ExportPtr entered() const;

 private:
  enum class Pause : std::uint8_t { need_input, blocked, large_write, ended };

  // The phases (session.cpp).
  Task<Result<void>> negotiate();
  Task<Result<void>> negotiate_options(Handshake& handshake);
  Task<Result<void>> send_all(std::vector<std::byte> bytes);
  Task<Result<void>> transmit();
  Task<Result<void>> receive_large_write();
  Task<void> finish();
  void leave();
  /// Between these two a client holds memory that others may wait for.
  void start_to_hold(bool& what);
  void moved(std::size_t bytes);
  Task<Result<void>> watch_for_stall();
  /// Reads what the client still sends, for a moment, and throws it away. A socket that is closed while
  /// something is unread is reset, and replies that are on their way are lost with it.
  Task<void> linger();
  Task<Result<void>> wait_for_input();
  Stream::Transfer fill_input();

  // Requests (session_requests.cpp).
  Pause serve_buffered();
  Pause serve_one(const Request& request, std::size_t header_bytes);
  void serve_read(const Request& request);
  bool read_in_place(const Request& request);
  Pause serve_write(const Request& request, std::span<const std::byte> payload);
  void finish_large_write(const Request& request, Buffer payload);
  Pause serve_status(const Request& request, std::span<const std::byte> payload);
  Task<Result<void>> run_read(Request request, Buffer buffer, Export::Hold hold);
  Task<Result<void>> run_write(Request request, Buffer payload, Export::Hold hold);
  Task<Result<void>> run_other(Request request, Export::Hold hold);
  std::size_t status_bytes_max(const Request& request, std::size_t contexts) const;
  Task<Result<void>> run_status(Request request, std::vector<std::uint32_t> ids, Export::Hold hold);
  Task<Result<std::vector<StatusRun>>> gather_status(const Context& of, Range range, bool one,
                                                     BlockDevice& device);

  // Replies (session_replies.cpp).
  void reply_data(const Request& request, Buffer buffer);
  void reply_success(const Request& request);
  void reply_error(const Request& request, NbdErrno error, std::string_view text);
  void reply_error(const Request& request, const Error& error);
  void request_done(std::size_t bytes);
  void flush_output();
  void flush_soon();
  Task<Result<void>> drain_output();
  void break_off(std::string problem);

  bool is_blocked() const;
  void start(Task<Result<void>> task, std::size_t bytes);
  std::span<const std::byte> buffered() const { return {input_.get() + begin_, end_ - begin_}; }
  /// Waits until something changed that is_blocked() looks at.
  Task<void> wait_for_progress();
  void notify_progress();

  SessionContext& context_;
  const Executor executor_;
  const std::unique_ptr<Stream> stream_;
  const TlsMode tls_mode_;
  const bool direct_tls_;

  Terms terms_;
  ExportPtr export_;
  Export::Hold batch_;  // while buffered requests are served

  std::unique_ptr<std::byte[]> input_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t skip_bytes_ = 0;  // payload of a refused request
  std::vector<std::byte> after_skip_;
  Request large_write_;

  /// Memory for a payload: the common pool's, or when that is used up the session's own for what fits there.
  Task<Result<Buffer>> acquire(std::size_t bytes);
  /// The same for the loop that receives, which stop() must get out of its wait.
  Task<Result<Buffer>> acquire_or_stop(std::size_t bytes);
  Task<Result<void>> acquire_into(std::size_t bytes, Buffer& into);
  TaskGroup* memory_wait_ = nullptr;

  BufferPool reserve_;
  OutputQueue output_;
  bool write_blocked_ = false;
  bool flush_posted_ = false;
  bool receiving_payload_ = false;
  TimePoint last_progress_{};    // when a client that holds memory last had moved enough
  std::size_t moved_bytes_ = 0;  // since then
  TaskGroup requests_;
  TaskGroup senders_;
  std::size_t in_flight_ = 0;
  std::size_t bytes_in_flight_ = 0;
  std::size_t status_bytes_in_flight_ = 0;  // what answers to block status that are being made may take

  std::mutex progress_guard_;
  WaitQueue progress_waiters_;

  std::atomic<bool> stopping_ = false;
  bool was_busy_ = false;  // when the end came
  bool broken_ = false;    // nothing is sent any more
  std::string problem_;
  mutable std::mutex entered_guard_;
  ExportPtr entered_;
};

}  // namespace diskferry::nbd_server
