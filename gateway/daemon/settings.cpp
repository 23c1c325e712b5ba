// The configuration in the rooms' own words.
#include "gateway/daemon/settings.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/control/address.hpp"
#include "gateway/nbd/tls.hpp"

#include <algorithm>

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
  if (from.listen.text.empty()) return options;
  // The same forms of HOST:PORT as for NBD; only the port that is meant without one differs.
  auto address = nbd_server::ListenAddress::parse("nbd://" + from.listen.text);
  if (!address)
    return unexpected(at(from.listen, fail(ErrorKind::invalid_argument, "listen", printable(from.listen.text))
                                          .why("this is no HOST:PORT")));
  const std::string_view text = from.listen.text;
  const auto bracket = text.rfind(']');
  const bool has_port = text.substr(bracket == std::string_view::npos ? 0 : bracket).contains(':');
  options.listens_on_tcp = true;
  options.host = address->host;
  options.port = has_port ? address->port : control::GatewayAddress::default_port;
  return options;
}

LogOptions log_options(const Config& config) {
  return {.level = log_levels.at(config.log.level), .format = log_formats.at(config.log.format)};
}

Result<void> check_settings(const Config& config) {
  DISKFERRY_CHECK(nbd_options(config));
  DISKFERRY_TRY(const auto control, control_options(config));
  if (control.listens_on_tcp) DISKFERRY_CHECK(nbd_server::TlsContext::make(control_tls(config)));
  if (config.nbd.tls != NbdConfig::Tls::off) DISKFERRY_CHECK(nbd_server::TlsContext::make(nbd_tls(config)));
  return {};
}

}  // namespace diskferry::daemon
