// Who ended a machine is told by the event, and by nothing that comes after it.
#include "gateway/move/move_failure.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <fmt/format.h>

namespace diskferry {
namespace {

struct Word {
  std::string_view event;
  std::string_view text;
};
constexpr std::array words{
    Word{"stopped: destroyed", "was destroyed (virsh destroy, or a tool that does it)"},
    Word{"stopped: shut down", "was shut down"}, Word{"stopped: crashed", "crashed"},
    Word{"stopped: failed", "ended: its QEMU crashed or was killed"},
    Word{"stopped: saved", "was saved to a file (virsh save)"}};

std::string in_words(const std::string& event) {
  for (const Word& word : words)
    if (word.event == event) return std::string(word.text);
  return event.empty() ? "ended" : fmt::format("ended ({})", printable(event));
}

/// Nobody took the memory: its QEMU had ended, or nothing of the kind may come in there. libvirt's own
/// undoing ends the machine there, too, so that the event tells nothing.
bool is_memory_refused(const Error& said, const MoveEnding& seen) {
  return !seen.target_ended.empty() && said.why().contains("onnection refused");
}

/// libvirt's words where somebody else than itself ended the machine: in undoing a move it says "failed".
bool is_of_somebody(const std::string& event) {
  return !event.empty() && event != "stopped: failed" && event != "stopped: migrated";
}

}  // namespace

std::string host_of(std::string_view libvirt_uri) {
  const auto uri = ImageUri::parse(libvirt_uri);
  return uri && !uri->host().empty() ? printable(uri->host()) : printable(libvirt_uri);
}

std::optional<Error> cause_of_ending(const Error& said, const MoveEnding& seen) {
  const std::string log = "/var/log/libvirt/qemu/" + printable(seen.machine) + ".log";
  if (seen.has_ended)
    return fail(ErrorKind::gone, "migrate", printable(seen.machine))
        .why(fmt::format("on {} the guest {} while it moved", printable(seen.source_host),
                         in_words(seen.source_ended)))
        .remedy(fmt::format("its disks are on {} as it left them: start it there, and look at {}",
                            printable(seen.source_host), log));
  if (said.kind() == ErrorKind::gone && (seen.has_lost_source || seen.has_lost_target)) {
    const std::string& host = seen.has_lost_source ? seen.source_host : seen.target_host;
    return fail(ErrorKind::gone, "migrate", printable(seen.machine))
        .why(fmt::format("libvirt on {} did not answer any more: {}", printable(host), said.why()))
        .remedy("see that libvirtd runs there and the link is up, and begin again");
  }
  if (is_memory_refused(said, seen) && !seen.was_given_up && !is_of_somebody(seen.target_ended))
    return fail(ErrorKind::gone, "migrate", printable(seen.machine))
        .why(
            fmt::format("the QEMU that waited on {} for the guest had ended, or a firewall there refused the "
                        "connection for the memory; the guest goes on on {}",
                        printable(seen.target_host), printable(seen.source_host)))
        .remedy(fmt::format(
            "look there in {}; libvirt uses the ports 49152 to 49215, or that of --memory-uri", log));
  // The guest goes on, so it was not the monitor of its own QEMU.
  const bool is_missed =
      said.kind() == ErrorKind::not_found || said.why().contains("unexpectedly closed the monitor");
  if (!is_missed && !seen.was_given_up && !is_of_somebody(seen.target_ended)) return std::nullopt;
  return fail(ErrorKind::gone, "migrate", printable(seen.machine))
      .why(fmt::format("the machine that waited on {} for the guest {}; the guest goes on on {}",
                       printable(seen.target_host), in_words(seen.target_ended), printable(seen.source_host)))
      .remedy(fmt::format("find out who ended it, there in {}, and begin again", log));
}

}  // namespace diskferry
