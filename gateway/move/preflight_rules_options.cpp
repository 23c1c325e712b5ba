// Rules about how the move was asked for: options that do not go together or do not suit the machine.
#include "gateway/move/preflight_rules.hpp"

#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

/// QEMU stops, sends what is left and starts elsewhere; less than this it does not manage even when idle.
constexpr std::uint64_t pause_min_ms = 50;

/// The first libvirt that compresses on parallel connections.
constexpr std::uint64_t parallel_compression_version = 9001000;

bool runs(const PreflightFacts& facts) {
  return facts.machine.state == VmState::running;
}

void memory_is_encrypted_on_the_way(const PreflightFacts& facts, Findings& found) {
  if (!runs(facts) || facts.request.memory_tls || facts.request.memory_uri.starts_with("unix:")) return;
  found.warn(
      "memory-in-clear", "memory",
      "The guest's memory goes over the network without TLS: others may read it, passwords and all.",
      copies_disks(facts)
          ? "lead it through a tunnel of your own (--memory-uri), unless the network is trusted: libvirt "
            "has --memory-tls only where no disk is copied"
          : "give both QEMUs certificates (default_tls_x509_cert_dir) and say --memory-tls, unless the "
            "network is trusted");
}

void memory_tls_goes_alone(const PreflightFacts& facts, Findings& found) {
  if (!runs(facts) || !facts.request.memory_tls || !copies_disks(facts)) return;
  found.block(
      "memory-tls-with-disks", "memory",
      "libvirt does not encrypt the memory while disks are copied by way of a UNIX socket, as they are.",
      "leave out --memory-tls, and lead the memory through a tunnel where the network is not trusted");
}

void post_copy_is_understood(const PreflightFacts& facts, Findings& found) {
  if (!facts.request.post_copy || !runs(facts)) return;
  found.warn("post-copy", "memory",
             "Once post-copy has begun there is no way back: if the network or a host fails then, the guest "
             "is lost.",
             "leave out --post-copy if the guest's memory settles without it");
  if (facts.request.parallel > 1)
    found.block("post-copy-parallel", "memory", "QEMU has no post-copy over parallel connections.",
                "leave out --post-copy or --parallel");
}

void compression_goes_with_connections(const PreflightFacts& facts, Findings& found) {
  const std::string& method = facts.request.compression;
  if (method.empty()) return;
  const bool needs_parallel = method == "zlib" || method == "zstd";
  const std::uint64_t version = facts.source.libvirt_version;
  if (needs_parallel && version != 0 && version < parallel_compression_version)
    return found.block("compression-libvirt", "memory",
                       fmt::format("This host's libvirt has no {} compression.", method),
                       "choose xbzrle, or leave out --compression");
  if (needs_parallel && facts.request.parallel == 0)
    found.block("compression-parallel", "memory",
                fmt::format("QEMU compresses with {} on parallel connections only.", method),
                "say --parallel 2, or choose xbzrle");
  if (!needs_parallel && facts.request.parallel > 0)
    found.block("compression-parallel", "memory",
                fmt::format("QEMU has no {} compression on parallel connections.", method),
                "leave out --parallel, or choose zstd");
  if (method == "mt" && facts.request.post_copy)
    found.block("compression-post-copy", "memory", "QEMU has no mt compression with post-copy.",
                "leave out one of the two, or choose xbzrle");
}

void move_comes_to_an_end(const PreflightFacts& facts, Findings& found) {
  const MoveRequest& request = facts.request;
  if (!runs(facts) || request.auto_converge || request.post_copy || request.timeout_s != 0) return;
  found.note("no-time-limit", "memory",
             "A guest that changes its memory faster than it can be sent is never done: --auto-converge, "
             "--post-copy or --timeout end that.");
}

void pause_can_be_kept(const PreflightFacts& facts, Findings& found) {
  if (!runs(facts) || facts.request.max_pause_ms >= pause_min_ms) return;
  found.warn("pause-too-short", "memory",
             fmt::format("A pause of {} ms is shorter than QEMU can make it.", facts.request.max_pause_ms),
             fmt::format("allow {} ms or more with --max-pause", pause_min_ms));
}

void options_suit_a_machine_that_is_off(const PreflightFacts& facts, Findings& found) {
  const MoveRequest& request = facts.request;
  if (facts.machine.state != VmState::shut_off) return;
  if (!request.auto_converge && !request.post_copy && request.parallel == 0 && request.compression.empty())
    return;
  found.note("options-not-used", "memory",
             "The machine does not run: what was said about its memory has no effect.");
}

constexpr std::array<Rule, 7> rules{
    memory_is_encrypted_on_the_way,    memory_tls_goes_alone, post_copy_is_understood,
    compression_goes_with_connections, move_comes_to_an_end,  pause_can_be_kept,
    options_suit_a_machine_that_is_off};
}  // namespace

std::span<const Rule> option_rules() noexcept {
  return rules;
}

}  // namespace diskferry
