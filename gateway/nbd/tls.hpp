// TLS as a pair of byte queues around OpenSSL: ciphertext goes in and out in large batches, whatever moves
// it. asio::ssl::stream moves 17 KiB at a time; this moves what fits. Key material is never printed.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/nbd/handshake.hpp"
#include "gateway/nbd/tls_options.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace diskferry::nbd_server {

/// One connection's TLS. Thread: one at a time.
class TlsEngine {
 public:
  enum class Status : std::uint8_t {
    done,
    want_input,  ///< feed more ciphertext
    ended,       ///< the peer closed, with or without saying so
    failed
  };
  /// Ciphertext that waits to be sent is bounded by this and one write.
  static constexpr std::size_t output_bytes_max = 512u << 10;

  ~TlsEngine();
  TlsEngine(const TlsEngine&) = delete;
  TlsEngine& operator=(const TlsEngine&) = delete;

  Status handshake();
  /// After the handshake. Errors: permission (not on the list of allowed names).
  Result<PeerIdentity> peer() const;
  Status read(std::span<std::byte> into, std::size_t& read_bytes);
  /// Encrypts all of `from`; Status done or failed.
  Status write(std::span<const std::byte> from);
  /// Says goodbye to the peer.
  void shut_down();

  /// Where the next ciphertext is received to; never empty unless read() must be called first.
  std::span<std::byte> input_space();
  void input_added(std::size_t bytes);
  void input_ended();
  std::span<const std::byte> output() const;
  void output_sent(std::size_t bytes);
  /// What OpenSSL said went wrong, for the log.
  const std::string& problem() const noexcept { return problem_; }

 private:
  friend class TlsContext;
  struct State;
  explicit TlsEngine(std::unique_ptr<State> state);
  Status classify(int returned);
  std::unique_ptr<State> state_;
  std::string problem_;
};

/// Certificates and keys, loaded once. Thread: any. Lifetime: shared with its engines.
class TlsContext : public std::enable_shared_from_this<TlsContext> {
 public:
  /// Errors: invalid_argument (options that contradict each other, a malformed file), not_found, permission.
  static Result<std::shared_ptr<TlsContext>> make(const TlsOptions& options);
  /// For connections to servers: `certificates` is a folder with ca-cert.pem, client-cert.pem and
  /// client-key.pem, `server_name` the name or address that the server's certificate must be for.
  static Result<std::shared_ptr<TlsContext>> make_client(const std::string& certificates,
                                                         std::string server_name);
  ~TlsContext();
  /// Errors: internal.
  Result<std::unique_ptr<TlsEngine>> make_engine();

  struct State;
  explicit TlsContext(std::unique_ptr<State> state);

 private:
  friend class TlsEngine;
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::nbd_server
