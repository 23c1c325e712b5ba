// See migrate_options.hpp.
#include "gateway/cli/migrate_options.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/options.hpp"

#include <fmt/format.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

/// The host of --to, over ssh, where --gateway-to does not name it.
Result<std::string> ssh_gateway(const MoveRequest& request) {
  if (request.gateway.starts_with("ssh://")) return request.gateway;
  if (!request.gateway.empty())
    return unexpected(fail(ErrorKind::invalid_argument, "migrate")
                          .why("--via ssh and --gateway-to name different ways")
                          .remedy("leave one out, or say --gateway-to ssh://HOST"));
  DISKFERRY_TRY(const ImageUri to, ImageUri::parse(request.destination));
  if (to.host().empty())
    return unexpected(fail(ErrorKind::invalid_argument, "migrate")
                          .why("--to names no host")
                          .remedy("say --gateway-to ssh://HOST"));
  const std::string host = to.host().contains(':') ? "[" + to.host() + "]" : to.host();
  return "ssh://" + (to.user().empty() ? host : to.user() + "@" + host);
}

}  // namespace

Result<MoveDisk> parse_move_disk(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    return unexpected(fail(ErrorKind::invalid_argument, "read --disk")
                          .why(fmt::format("'{}' is no disk with its target", printable(text)))
                          .remedy("say --disk vda=/images/vm.qcow2"));
  MoveDisk disk{.target = text.substr(0, equals), .uri = text.substr(equals + 1)};
  for (const std::string_view format : {"raw", "qcow2"}) {
    if (!disk.uri.starts_with(std::string(format) + ":")) continue;
    disk.format = format;
    disk.uri.erase(0, format.size() + 1);
  }
  return disk;
}

namespace {
Result<void> take_secret(const std::string& text, std::vector<MoveDisk>& disks) {
  const auto equals = text.find('=');
  const auto disk = std::ranges::find(disks, text.substr(0, equals), &MoveDisk::target);
  if (equals != std::string::npos && equals + 1 < text.size() && disk != disks.end()) {
    disk->secret = text.substr(equals + 1);
    return {};
  }
  return unexpected(fail(ErrorKind::invalid_argument, "read --secret")
                        .why(fmt::format("'{}' is no disk of --disk with its secret", printable(text)))
                        .remedy("say --secret vda=UUID, as virsh secret-list shows it on the other host"));
}
}  // namespace

Result<std::pair<std::string, std::string>> parse_network_names(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    return unexpected(fail(ErrorKind::invalid_argument, "read --network")
                          .why(fmt::format("'{}' maps no network to another", printable(text)))
                          .remedy("say --network default=lan"));
  return std::pair<std::string, std::string>(text.substr(0, equals), text.substr(equals + 1));
}

Result<MoveRequest> MigrateOptions::request() const {
  MoveRequest request = move;
  request.verify = !no_verify;
  if (via_ssh) {
    DISKFERRY_TRY(request.gateway, ssh_gateway(request));
  }
  for (const std::string& text : disks) {
    DISKFERRY_TRY(MoveDisk disk, parse_move_disk(text));
    request.disks.push_back(std::move(disk));
  }
  for (const std::string& text : secrets) DISKFERRY_CHECK(take_secret(text, request.disks));
  for (const std::string& text : networks) {
    DISKFERRY_TRY(const auto names, parse_network_names(text));
    request.networks[names.first] = names.second;
  }
  DISKFERRY_CHECK(check(request));
  return request;
}

namespace {

void declare_limits(CLI::App& app, MigrateOptions& options) {
  MoveRequest& request = options.move;
  add_bytes(app, "--rate", request.bytes_per_s,
            "bytes a second at most, disks and memory together (default: no limit)");
  add_milliseconds(
      app, "--max-pause", [&request](std::uint64_t ms) { request.max_pause_ms = ms; },
      "how long the guest may stand still (default: 300ms)");
  app.add_option("--timeout", request.timeout_s, "act when the move takes longer than that, in seconds")
      ->type_name("S");
  add_choice(app, "--timeout-action", request.timeout_action,
             {{"abort", TimeoutAction::abort},
              {"suspend", TimeoutAction::suspend},
              {"post-copy", TimeoutAction::post_copy}},
             "ACTION", "abort, suspend (the guest, until it is over) or post-copy (default: abort)");
  app.add_flag("--auto-converge", request.auto_converge,
               "let the hypervisor slow the guest down until its memory converges");
  app.add_flag("--post-copy", request.post_copy, "allow the memory to follow after the switchover");
  app.add_option("--parallel", request.parallel, "connections of the memory stream")->type_name("N");
  app.add_option("--compression", request.compression, "of the memory stream: xbzrle, mt, zlib, zstd")
      ->type_name("METHOD");
  app.add_flag("--memory-tls", request.memory_tls, "encrypt the memory stream, with libvirt's certificates");
  app.add_option("--memory-uri", request.memory_uri,
                 "where the target's QEMU takes the memory: tcp://HOST; without libvirt: tcp://HOST:PORT")
      ->type_name("URI");
  app.add_option("--connections", request.connections, "to the target, for each disk")->type_name("N");
}

}  // namespace

void add_migrate_options(CLI::App& app, MigrateOptions& options) {
  MoveRequest& request = options.move;
  add_gateway_option(app, options.gateway);
  app.add_option("DOMAIN", request.domain, "the machine; without libvirt its monitor: qmp:/run/qemu/vm.qmp")
      ->required()
      ->type_name("");
  app.add_option("--to", request.destination,
                 "libvirt's URI of the other host: qemu+ssh://host-b/system; or the QEMU that waits there: "
                 "qmp://host-b/run/qemu/vm.qmp")
      ->required()
      ->type_name("URI");
  app.add_option("--from", request.source,
                 "libvirt's URI of this host (default: that of the gateway's configuration)")
      ->type_name("URI");
  app.add_option("--gateway-to", request.gateway, "the other host's gateway (default: https://HOST of --to)")
      ->type_name("URI");
  app.add_option("--disk", options.disks,
                 "where a disk goes: vda=/images/vm.qcow2, vdb=raw:/dev/vg/vm, vdc=nbd://store/vm; for each "
                 "disk that "
                 "is not on storage of both hosts")
      ->type_name("DISK=TARGET")
      ->allow_extra_args(false);
  app.add_option("--secret", options.secrets,
                 "UUID of the secret in the other host's libvirt with the key of a disk's network storage")
      ->type_name("DISK=UUID")
      ->allow_extra_args(false);
  app.add_option("--network", options.networks, "what a network or bridge is called there: default=lan")
      ->type_name("HERE=THERE")
      ->allow_extra_args(false);
  app.add_flag("--cold", request.cold, "the machine is shut off: copy its disks and define it there");
  app.add_option("--machine", request.machine_type,
                 "with --cold: machine type there in place of its own: pc-q35-7.2")
      ->type_name("TYPE");
  app.add_option("--cpu", request.cpu,
                 "with --cold: CPU there in place of its own: host-model, host-passthrough, or a model")
      ->type_name("CPU");
  app.add_flag("--overwrite", request.overwrite, "targets that are there may be overwritten");
  declare_limits(app, options);
  app.add_flag("--keep-partial", request.keep_partial,
               "after a failure keep what was copied; the next attempt sends the rest");
  app.add_flag("--keep-source", request.keep_source,
               "keep the machine defined here until 'diskferry commit JOB'");
  auto* verify = app.add_flag("--verify", request.verify_running,
                              "of a machine that runs: read the targets back before its memory goes over");
  app.add_flag("--no-verify", options.no_verify, "with --cold: do not read the targets back")
      ->excludes(verify);
}

}  // namespace diskferry::cli
