// The configuration in the rooms' own words.
#include "gateway/daemon/settings.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/address.hpp"
#include "gateway/nbd/tls.hpp"

#include <algorithm>
#include <arpa/inet.h>

namespace diskferry::daemon {
namespace {

Error at(const ConfigText& place, const Error& error) {
  return fail(ErrorKind::invalid_argument, "read configuration",
              printable(place.where.empty() ? "a default" : place.where))
      .why(error.message());
}

nbd_server::TlsOptions nbd_tls(const Config& config) {
  nbd_server::TlsOptions tls{.mode = nbd_server::TlsMode::off, .psk_file = config.nbd.psk_file};
  if (config.nbd.tls == NbdConfig::Tls::on) tls.mode = nbd_server::TlsMode::on;
  if (config.nbd.tls == NbdConfig::Tls::require) tls.mode = nbd_server::TlsMode::require;
  if (config.nbd.tls != NbdConfig::Tls::off) tls.certificates = config.nbd.certificates;
  tls.verify_peer = config.nbd.verify_peer && !tls.certificates.empty();
  tls.allow = config.nbd.allow;
  return tls;
}

nbd_server::TlsOptions control_tls(const Config& config) {
  return {.mode = nbd_server::TlsMode::require,
          .certificates = config.control.certificates,
          .verify_peer = true,
          .allow = config.control.allow};
}

/// HOST:PORT in the same forms as for NBD; only the port that is meant without one differs.
Result<nbd_server::ListenAddress> host_and_port(const ConfigText& from, std::uint16_t default_port) {
  auto address = nbd_server::ListenAddress::parse("nbd://" + from.text);
  if (!address)
    return unexpected(at(
        from, fail(ErrorKind::invalid_argument, "listen", printable(from.text)).why("this is no HOST:PORT")));
  const std::string_view text = from.text;
  const auto bracket = text.rfind(']');
  const bool has_port = text.substr(bracket == std::string_view::npos ? 0 : bracket).contains(':');
  if (!has_port) address->port = default_port;
  return address;
}

/// Nobody but this host reaches it.
bool is_loopback(const std::string& host) {
  in_addr address{};
  if (inet_pton(AF_INET, host.c_str(), &address) == 1) return (ntohl(address.s_addr) >> 24) == 127;
  in6_addr six{};
  if (inet_pton(AF_INET6, host.c_str(), &six) == 1) return IN6_IS_ADDR_LOOPBACK(&six);
  return host == "localhost";
}

Result<control::WebOptions> web_options(const Config& config) {
  const WebConfig& from = config.web;
  control::WebOptions options{
      .hosts = from.hosts, .allow = from.allow, .certificates = config.control.certificates};
  if (from.listen.text.empty()) return options;
  DISKFERRY_TRY(const auto address, host_and_port(from.listen, control::WebOptions::default_port));
  if (!is_loopback(address.host) && from.allow.empty() && !from.plain)
    return unexpected(
        at(from.listen, fail(ErrorKind::invalid_argument, "listen", printable(from.listen.text))
                            .why("other hosts reach this address, and whoever does could look")
                            .remedy("name who may in web.allow (they use TLS and show a certificate), or say "
                                    "web.plain = true if all of that network may")));
  options.listens = true;
  options.host = address.host;
  options.port = address.port;
  return options;
}

}  // namespace

Result<nbd_server::ServerOptions> nbd_options(const Config& config) {
  nbd_server::ServerOptions options;
  for (const ConfigText& text : config.nbd.listen) {
    auto address = nbd_server::ListenAddress::parse(text.text);
    if (!address) return unexpected(at(text, address.error()));
    if (address->tls != nbd_server::ListenAddress::Tls::by_mode && config.nbd.tls == NbdConfig::Tls::off)
      return unexpected(at(text, fail(ErrorKind::invalid_argument, "listen", printable(text.text))
                                     .why("the address asks for TLS, but nbd.tls is off")));
    options.listen.push_back(std::move(*address));
  }
  options.tls = nbd_tls(config);
  options.limits.connections_max = config.nbd.connections_max;
  return options;
}

Result<control::ServerOptions> control_options(const Config& config) {
  const ControlConfig& from = config.control;
  control::ServerOptions options{.socket = from.socket,
                                 .socket_group = from.group,
                                 .certificates = from.certificates,
                                 .allow = from.allow,
                                 .peers = from.peers};
  DISKFERRY_TRY(options.web, web_options(config));
  if (from.listen.text.empty()) return options;
  DISKFERRY_TRY(const auto address, host_and_port(from.listen, control::GatewayAddress::default_port));
  options.listens_on_tcp = true;
  options.host = address.host;
  options.port = address.port;
  return options;
}

LogOptions log_options(const Config& config) {
  return {.level = log_levels.at(config.log.level), .format = log_formats.at(config.log.format)};
}

Result<void> check_settings(const Config& config) {
  DISKFERRY_CHECK(nbd_options(config));
  DISKFERRY_TRY(const auto control, control_options(config));
  const bool has_tls = control.listens_on_tcp || (control.web.listens && !control.web.allow.empty());
  if (has_tls) DISKFERRY_CHECK(nbd_server::TlsContext::make(control_tls(config)));
  if (config.nbd.tls != NbdConfig::Tls::off) DISKFERRY_CHECK(nbd_server::TlsContext::make(nbd_tls(config)));
  return {};
}

}  // namespace diskferry::daemon
