// What browsers and Prometheus may look at: a page of the jobs, what it is made of, and the figures. Nothing
// can be changed through it, and what jobs were asked for and keep for themselves is not shown. For
// server.cpp.
//
// A browser will ask us in the name of any page that somebody has open. So whoever names us is checked (a
// stranger's name that resolves to this host is DNS rebinding), no other site may read or embed an answer,
// and the page itself may load and run nothing but what is here.
#pragma once

#include "gateway/control/routes.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry::control {

/// Of browsers: a page, its event stream, and a Prometheus or two.
inline constexpr Limits web_limits{.header_bytes_max = 8u << 10,
                                   .body_bytes_max = 1u << 10,
                                   .connections_max = 64,
                                   .event_streams_max = 32,
                                   .handle_time = std::chrono::seconds(30)};

struct WebOptions {
  static constexpr std::uint16_t default_port = 9309;
  bool listens = false;
  std::string host{};
  std::uint16_t port = default_port;
  std::vector<std::string> hosts{};  ///< names it is called by, besides addresses, localhost and `host`
  std::vector<std::string> allow{};  ///< names of client certificates that may look; empty: no TLS
  std::string certificates{};        ///< as ServerOptions::certificates, where there is TLS
  Limits limits = web_limits;
};

/// Lines of every answer.
inline constexpr std::string_view web_headers =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n";

/// Whether `host`, as a request says it ("name:port", "[::1]:9309"), is one of ours: an address, which no
/// name server can point elsewhere, localhost, or one of `names`. Pure.
bool is_our_host(std::string_view host, const std::vector<std::string>& names);

/// Lifetime: of what it is made of.
class WebResponder final : public Responder {
 public:
  WebResponder(GatewayApi& api, const WebOptions& options);
  Task<Answer> answer(HttpRequest request, Caller caller) override;

 private:
  GatewayApi& api_;
  const std::vector<std::string> names_;
};

}  // namespace diskferry::control
