// The control server: listens on a UNIX socket and, where asked for, on TCP with mutual TLS; lets in who may
// and serves a GatewayApi to them. Where asked for, also listens for browsers and Prometheus, who may look
// and change nothing. Used by the daemon.
//
//   Server server(context, api, options);
//   co_await server.start();
//   ...
//   co_await server.stop();     // no new requests; those that are handled end
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/control/api.hpp"
#include "gateway/control/limits.hpp"
#include "gateway/control/web.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace diskferry::control {

struct ServerOptions {
  std::string socket{};  ///< path of the UNIX socket; empty: none
  /// Members may use the socket, besides root and our own user; empty: nobody else.
  std::string socket_group{};
  std::string host{};  ///< tcp, with `port`; used when `listens_on_tcp`
  std::uint16_t port = 0;
  bool listens_on_tcp = false;
  std::string certificates{};        ///< folder with ca-cert.pem, server-cert.pem and server-key.pem
  std::vector<std::string> allow{};  ///< names of client certificates that may do everything
  std::vector<std::string> peers{};  ///< those that may prepare disks only
  Limits limits{};
  WebOptions web{};
  /// Gets one line for what an operator may want to know; may be called from any reactor thread.
  enum class Severity : std::uint8_t { debug, info, warn };
  std::function<void(Severity, std::string)> log{};
};

/// Thread: any, but start() and stop() are called once each, in this order.
/// Lifetime: stop() before destruction if start() succeeded; `context` and `api` outlive it.
class Server {
 public:
  Server(DriverContext& context, GatewayApi& api, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Errors: in_use (somebody listens there), not_found (a group, a certificate), permission,
  /// invalid_argument.
  Task<Result<void>> start();
  /// The addresses as clients write them, with the port the system chose.
  std::vector<std::string> addresses() const;
  /// Those for browsers: "http://127.0.0.1:9309/".
  std::vector<std::string> web_addresses() const;
  /// Stops accepting, lets what is being handled end within limits.drain_time, ends event streams, closes.
  Task<Result<void>> stop();
  /// Connections now, without those that look.
  std::size_t connections() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace diskferry::control
