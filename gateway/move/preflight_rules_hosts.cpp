// Rules about the two hosts, their gateways and what lies between them.
#include "diskferry/units.hpp"
#include "gateway/move/preflight_rules.hpp"

#include <array>
#include <cstdlib>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// The first that can mirror disks to a socket it was told of (disks_uri).
constexpr std::uint64_t libvirt_version_min = 6008000;
constexpr std::int64_t clock_skew_warn_ms = 2000;
/// More, and certificates count as expired or not yet valid.
constexpr std::int64_t clock_skew_max_ms = 60000;
constexpr std::uint64_t round_trip_note_us = 20000;
constexpr std::uint64_t round_trip_warn_us = 100000;

void target_is_reachable(const PreflightFacts& facts, Findings& found) {
  if (!facts.target_problem) return;
  found.block("target-unreachable", "target", facts.target_problem->message(),
              remedy_of(*facts.target_problem, "check that libvirt runs there, and the URI given with --to"));
}

void gateway_is_reachable(const PreflightFacts& facts, Findings& found) {
  if (!facts.gateway_problem) return;
  found.block("gateway-unreachable", "gateway", facts.gateway_problem->message(),
              remedy_of(*facts.gateway_problem,
                        "check that diskferryd runs there, and that both sides have "
                        "certificates of the same authority"));
}

void hosts_are_two(const PreflightFacts& facts, Findings& found) {
  if (!facts.target || facts.target->uuid.empty() || facts.target->uuid != facts.source.uuid) return;
  found.block("same-host", "target", "The machine is on this host already: both libvirt URIs lead to it.",
              "name another host with --to; use diskferry replace to move disks on the same host");
}

void gateways_are_two(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || facts.here.machine_id.empty() || facts.there->machine_id != facts.here.machine_id)
    return;
  found.block("same-gateway", "gateway", "The other gateway runs on this host.",
              "name the gateway of the target's host with --gateway; a host that was cloned needs a machine "
              "id of its own");
}

/// The move itself needs connections from here to there only; the next one, back, needs the others.
void gateway_reaches_this_one(const PreflightFacts& facts, Findings& found) {
  if (facts.way_back_problem)
    found.warn("no-way-back", "gateway",
               fmt::format("The gateway there cannot reach this one: {}. The machine can go there, and could "
                           "not come back.",
                           facts.way_back_problem->message()),
               remedy_of(*facts.way_back_problem,
                         "let connections through both ways, and name each gateway in control.peers of the "
                         "other"));
  if (facts.seen_from_there && facts.seen_from_there->machine_id != facts.here.machine_id)
    found.warn("way-back-elsewhere", "gateway",
               fmt::format("Under this gateway's name the gateway there reaches another one, {}.",
                           facts.seen_from_there->name),
               "check what this host's name means there (getent hosts)");
}

void gateway_is_who_it_says(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || facts.gateway_certificate_name.empty() ||
      first_label(facts.gateway_certificate_name) == first_label(facts.there->name))
    return;
  found.warn("gateway-name", "gateway",
             fmt::format("The gateway calls itself {}, and its certificate is for {}.", facts.there->name,
                         facts.gateway_certificate_name),
             "set the gateway's name to the one in its certificate");
}

void gateway_is_at_the_target(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || !facts.target || facts.there->name.empty() || facts.target->hostname.empty() ||
      first_label(facts.there->name) == first_label(facts.target->hostname))
    return;
  found.note("gateway-host-unclear", "gateway",
             fmt::format("The gateway is called {} and the libvirt host {}: they must be the same host.",
                         facts.there->name, facts.target->hostname));
}

void gateway_version(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || facts.there->version == facts.here.version) return;
  found.note("gateway-version", "gateway",
             fmt::format("The gateways are of different versions: {} here and {} there.", facts.here.version,
                         facts.there->version));
}

void gateway_offers_disks(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || facts.there->nbd_port != 0 || !copies_disks(facts)) return;
  found.block("gateway-offers-nothing", "gateway", "The gateway there does not offer disks over the network.",
              "give it an address to listen on for NBD in its configuration");
}

void disks_are_encrypted_on_the_way(const PreflightFacts& facts, Findings& found) {
  if (!facts.there || facts.there->nbd_requires_tls || !copies_disks(facts)) return;
  found.warn("disks-in-clear", "gateway", "The gateway there takes disks without TLS: others may read them.",
             "give it certificates and let it require TLS, unless the network is trusted");
}

bool uses_tls(const PreflightFacts& facts) {
  return facts.request.memory_tls || facts.request.gateway.starts_with("https:") ||
         (facts.there && facts.there->nbd_requires_tls);
}

void clocks_agree(const PreflightFacts& facts, Findings& found) {
  if (!facts.clock_skew_ms) return;
  const std::int64_t skew_ms = std::abs(*facts.clock_skew_ms);
  if (skew_ms <= clock_skew_warn_ms) return;
  const std::string text =
      fmt::format("The clock there is {:.1f} s {}.", static_cast<double>(skew_ms) / 1000,
                  *facts.clock_skew_ms > 0 ? "ahead of this host's" : "behind this host's");
  const std::string remedy = "let both hosts follow a time server (chrony, systemd-timesyncd)";
  if (skew_ms > clock_skew_max_ms && uses_tls(facts))
    found.block("clock-skew", "clock", text + " Certificates may not be valid there.", remedy);
  else
    found.warn("clock-skew", "clock", text + " The guest's clock may jump by as much.", remedy);
}

void round_trip_is_short(const PreflightFacts& facts, Findings& found) {
  if (!facts.round_trip_us || *facts.round_trip_us <= round_trip_note_us) return;
  const std::string text =
      fmt::format("A round trip to the target takes {} ms.", *facts.round_trip_us / 1000);
  if (*facts.round_trip_us <= round_trip_warn_us)
    return found.note("round-trip", "network",
                      text + " The pause cannot be much shorter than a few of them.");
  found.warn("round-trip", "network", text + " The pause will be several of them.",
             "expect a longer pause, or move at a quieter time with a larger --max-pause");
}

void libvirt_is_new_enough(const PreflightFacts& facts, Findings& found) {
  if (!copies_disks(facts)) return;
  const auto check = [&](const HostFacts& host, const std::string& subject) {
    if (host.libvirt_version == 0 || host.libvirt_version >= libvirt_version_min) return;
    found.block("libvirt-too-old", subject,
                fmt::format("libvirt {} cannot mirror disks through a gateway; that came with {}.",
                            version_text(host.libvirt_version), version_text(libvirt_version_min)),
                "update libvirt on that host");
  };
  check(facts.source, "source");
  if (facts.target) check(*facts.target, "target");
}

void target_is_not_older(const PreflightFacts& facts, Findings& found) {
  if (!facts.target) return;
  const HostFacts& there = *facts.target;
  if (there.hypervisor_version != 0 && there.hypervisor_version < facts.source.hypervisor_version)
    found.warn(
        "hypervisor-older", "target",
        fmt::format("QEMU there is older: {} against {} here. It may not take what this one sends.",
                    version_text(there.hypervisor_version), version_text(facts.source.hypervisor_version)),
        "update QEMU there first; moving to newer ones is what its developers test");
  if (there.libvirt_version != 0 && there.libvirt_version < facts.source.libvirt_version)
    found.note("libvirt-older", "target",
               fmt::format("libvirt there is older: {} against {} here.", version_text(there.libvirt_version),
                           version_text(facts.source.libvirt_version)));
}

void security_lets_sockets_through(const PreflightFacts& facts, Findings& found) {
  if (!copies_disks(facts)) return;
  const auto check = [&](const HostFacts& host, const std::string& folder, const std::string& subject) {
    if (contains(host.security_models, "selinux"))
      found.warn("selinux", subject,
                 fmt::format("SELinux confines QEMU on the {}; it may refuse the gateway's socket in {}.",
                             subject, folder.empty() ? "its move folder" : folder),
                 "let svirt_t connect to the gateway there (audit2allow shows the rule after a refusal)");
    if (contains(host.security_models, "apparmor"))
      found.note("apparmor", subject,
                 fmt::format("AppArmor confines QEMU on the {}. If it refuses the gateway's socket, allow "
                             "\"{}/** rw,\" in /etc/apparmor.d/local/abstractions/libvirt-qemu.",
                             subject, folder.empty() ? "/run/diskferry" : folder));
  };
  check(facts.source, facts.here.move_folder, "source");
  if (facts.target) check(*facts.target, facts.there ? facts.there->move_folder : "", "target");
}

void hypervisors_run_as_the_same_user(const PreflightFacts& facts, Findings& found) {
  if (!facts.target || facts.source.hypervisor_user.empty() || facts.target->hypervisor_user.empty() ||
      facts.target->hypervisor_user == facts.source.hypervisor_user)
    return;
  const std::string text = fmt::format("QEMU runs as {} here and as {} there.", facts.source.hypervisor_user,
                                       facts.target->hypervisor_user);
  for (const DiskFacts& disk : facts.disks)
    if (disk.is_shared)
      return found.warn("hypervisor-user", "target", text + " Shared disks must be open to both.",
                        "give the files of shared disks to a group that both users are in");
  found.note("hypervisor-user", "target", text);
}

void everything_was_answered(const PreflightFacts& facts, Findings& found) {
  for (const UnknownFact& unknown : facts.unknown)
    found.warn("not-known", unknown.subject, unknown.error.message(),
               remedy_of(unknown.error, "check it by hand, or solve this and run the plan again"));
}

constexpr std::array<Rule, 17> rules{target_is_reachable,
                                     gateway_is_reachable,
                                     hosts_are_two,
                                     gateway_reaches_this_one,
                                     gateways_are_two,
                                     gateway_is_who_it_says,
                                     gateway_is_at_the_target,
                                     gateway_version,
                                     gateway_offers_disks,
                                     disks_are_encrypted_on_the_way,
                                     clocks_agree,
                                     round_trip_is_short,
                                     libvirt_is_new_enough,
                                     target_is_not_older,
                                     security_lets_sockets_through,
                                     hypervisors_run_as_the_same_user,
                                     everything_was_answered};
}  // namespace

std::span<const Rule> host_rules() noexcept {
  return rules;
}

}  // namespace diskferry
