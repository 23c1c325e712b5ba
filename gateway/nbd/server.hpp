// The NBD server: listeners, sessions and their orderly end. Used by the command `export` and by the daemon.
//
//   Server server(context, {.listen = {address}});
//   server.exports().add(an_export);
//   co_await server.start();        // binds; server.addresses() says where
//   co_await server.wait();         // until cancelled, or the last client left
//   co_await server.stop();         // finishes what is in flight, flushes, closes
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/nbd/export.hpp"
#include "gateway/nbd/limits.hpp"
#include "gateway/nbd/listen_address.hpp"
#include "gateway/nbd/tls_options.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace diskferry::nbd_server {

struct ServerOptions {
  std::vector<ListenAddress> listen = {};
  /// Sockets that listen already (systemd socket activation, see activated_sockets()). Owned from start() on.
  std::vector<int> listening_sockets = {};
  /// One client that is connected already: a pair of descriptors, equal for a socket. Owned from start() on.
  /// The server ends with this client. -1: none.
  int connected_in = -1;
  int connected_out = -1;
  TlsOptions tls = {};
  Limits limits = {};
  /// wait() returns when a client has been there and the last one left.
  bool ends_with_last_client = false;
  /// Gets one line for what an operator may want to know; may be called from any reactor thread.
  enum class Severity : std::uint8_t { debug, info, warn, error };
  std::function<void(Severity, std::string)> log = {};
};

/// Thread: any, but start(), wait() and stop() are each called once, in this order.
/// Lifetime: stop() before destruction if start() succeeded; `context` outlives it.
class Server {
 public:
  Server(DriverContext& context, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  ExportTable& exports() noexcept;
  const TlsOptions& tls() const noexcept;
  /// Reads certificates and keys, binds and accepts. Errors: invalid_argument, in_use (the address),
  /// permission, not_found (a certificate), unsupported.
  Task<Result<void>> start();
  /// Where it listens, with the ports the system chose, as URIs of one of the exports.
  std::vector<std::string> addresses(std::string_view export_name = {}) const;
  /// Returns when the caller is cancelled (without an error) or, where asked for, the last client left.
  Task<Result<void>> wait();
  /// Stops accepting, lets requests in flight finish within limits.drain_time, flushes every writable export,
  /// closes the connections. Connections are closed, never answered with ESHUTDOWN: QEMU takes that for an
  /// I/O error and never reconnects. Errors: those of the flushes.
  Task<Result<void>> stop();
  /// Closes the sessions of one export in the same orderly way and waits for them.
  Task<Result<void>> disconnect(ExportPtr from);
  /// Sessions now, whatever their state.
  std::size_t sessions() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The sockets systemd hands over (LISTEN_FDS, LISTEN_PID; sd_listen_fds(3)); none when it did not. Takes the
/// variables out of the environment. Call it before there are threads. Errors: invalid_argument.
Result<std::vector<int>> activated_sockets();

}  // namespace diskferry::nbd_server
