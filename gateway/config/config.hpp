// The configuration of the daemon: one struct, read from one TOML file, checked as a whole and then never
// changed. Defaults stand here and nowhere else; docs/man/diskferryd.8.md tells them to operators.
#pragma once

#include "diskferry/error.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// A text that a higher room reads further, with the place it was written at for its messages.
struct ConfigText {
  std::string text{};
  std::string where{};  ///< "FILE:LINE"; empty for a default
};

/// [control]: who may command the gateway, and where.
struct ControlConfig {
  std::string socket = "/run/diskferry/control.sock";
  /// Members of this group may use the socket, besides root and the daemon's own user. Empty: nobody else.
  std::string group{};
  ConfigText listen{};  ///< "HOST:PORT" for other hosts, mutual TLS always; empty: none
  /// Folder with ca-cert.pem, server-cert.pem and server-key.pem (and client-cert.pem, client-key.pem for the
  /// connections to other gateways).
  std::string certificates = "/etc/diskferry/pki";
  /// Names (CN or DN) of client certificates that may do everything.
  std::vector<std::string> allow{};
  /// Names of gateways that may only prepare and finish disks of moves here.
  std::vector<std::string> peers{};
};

/// [web]: the figures for Prometheus and a page of the jobs. Nothing can be changed through it.
struct WebConfig {
  ConfigText listen{};  ///< "HOST:PORT"; empty: none
  /// Names (CN or DN) of client certificates that may look. With them there is TLS, and everybody shows one.
  std::vector<std::string> allow{};
  /// Other hosts may look without TLS and without proving who they are.
  bool plain = false;
  /// Names that browsers call this host by; addresses and localhost need none.
  std::vector<std::string> hosts{};
};

/// [nbd]: where exports are served.
struct NbdConfig {
  /// Empty: unix:/run/diskferry/nbd.sock.
  std::vector<ConfigText> listen{};
  enum class Tls : std::uint8_t { off, on, require } tls = Tls::off;
  std::string certificates{};  ///< empty: those of [control] where TLS is used
  std::string psk_file{};
  bool verify_peer = true;  ///< where certificates are used, clients show one too
  std::vector<std::string> allow{};
  std::uint32_t connections_max = 100;
};

/// [state]
struct StateConfig {
  std::string folder = "/var/lib/diskferry";  ///< jobs and ledgers; of the daemon's user alone
};

/// [log], on stderr.
struct LogConfig {
  std::string level = "info";   ///< error, warn, info, debug, trace
  std::string format = "text";  ///< text or json
};

/// [[export]]
struct ExportConfig {
  std::string name{};
  std::string image{};
  std::string format{};
  std::string description{};
  bool writable = false;
  bool require_tls = false;
  std::vector<std::string> allow{};
  std::string where{};
};

/// [move]: what a move does unless its request says otherwise.
struct MoveConfig {
  std::uint64_t window_bytes = 64u << 20;  ///< acknowledged to the guest and not yet at the target
  std::uint32_t connections = 4;           ///< to the target, each disk
  std::chrono::milliseconds max_pause{1000};
  std::uint64_t rate_bytes_per_s = 0;  ///< 0: no limit
  /// Who QEMU runs as: the sockets we make for it are given to them. Empty: left to us.
  std::string qemu_user{};
  std::string qemu_group{};
  std::string run_folder = "/run/diskferry";  ///< sockets of moves
  /// Folder of the monitors (QMP sockets) of QEMUs without libvirt that moves may use. Empty: none are.
  std::string qmp_sockets{};
};

/// [hypervisor]: that of this host.
struct HypervisorConfig {
  std::string uri = "qemu:///system";  ///< libvirt's
};

/// [evacuate]: machines of hosts that are gone.
struct EvacuateConfig {
  /// A program and its arguments that cuts a host off and says that it is off; "%h" is the host's name.
  std::vector<std::string> fence{};
  std::chrono::milliseconds fence_timeout{60'000};
  std::vector<std::string> hosts{};  ///< libvirt URIs of hosts that are asked whether they run the machine
};

struct Config {
  std::string name{};  ///< of this gateway for people; empty: the host's name
  ControlConfig control{};
  WebConfig web{};
  NbdConfig nbd{};
  StateConfig state{};
  LogConfig log{};
  MoveConfig move{};
  HypervisorConfig hypervisor{};
  EvacuateConfig evacuate{};
  std::vector<ExportConfig> exports{};
};

inline constexpr std::string_view default_config_path = "/etc/diskferry/diskferryd.toml";

/// Reads and checks a file. Errors: not_found, permission, too_large, invalid_argument naming FILE:LINE.
Result<Config> load_config(const std::string& path);
/// The same of a text; `name` stands for the file in messages.
Result<Config> parse_config(std::string_view text, const std::string& name);

}  // namespace diskferry
