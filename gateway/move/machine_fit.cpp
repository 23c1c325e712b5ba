// See the header.
#include "gateway/move/machine_fit.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>

namespace diskferry {
namespace {

constexpr std::array<std::string_view, 3> cpu_modes{"host-model", "host-passthrough", "maximum"};
constexpr std::size_t cpu_name_bytes_max = 64;

/// "pc-q35-7.2" -> "pc-q35-"; empty where no version follows.
std::string_view kind_of(std::string_view machine) {
  const auto dash = machine.rfind('-');
  if (dash == std::string_view::npos || dash + 1 == machine.size()) return {};
  const char first = machine[dash + 1];
  return first >= '0' && first <= '9' ? machine.substr(0, dash + 1) : std::string_view{};
}

/// "7.2" and "10.0" in their order as numbers.
std::pair<unsigned, unsigned> version_of(std::string_view machine) {
  const std::string_view text = machine.substr(kind_of(machine).size());
  unsigned major = 0;
  unsigned minor = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), major).ptr;
  if (end != text.data() + text.size() && *end == '.')
    (void)std::from_chars(end + 1, text.data() + text.size(), minor);
  return {major, minor};
}

}  // namespace

Result<std::string> cpu_xml_of(std::string_view cpu) {
  if (cpu.empty()) return std::string();
  if (std::ranges::find(cpu_modes, cpu) != cpu_modes.end()) return fmt::format("<cpu mode='{}'/>", cpu);
  const bool is_name =
      cpu.size() <= cpu_name_bytes_max &&
      cpu.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+") ==
          std::string_view::npos;
  if (!is_name)
    return unexpected(fail(ErrorKind::invalid_argument, "choose a CPU", printable(std::string(cpu)))
                          .why("it is no name of a CPU model")
                          .remedy("virsh cpu-models x86_64 lists them; host-model is the host's own"));
  return fmt::format("<cpu mode='custom' match='exact'><model fallback='forbid'>{}</model></cpu>", cpu);
}

std::vector<std::string> related_machine_types(std::string_view machine, const GuestSupport& known) {
  std::vector<std::string> related;
  const std::string_view kind = kind_of(machine);
  if (kind.empty()) return related;
  for (const auto& [name, cpus] : known.machines)
    if (kind_of(name) == kind) related.push_back(name);
  std::ranges::sort(related, {}, [](const std::string& name) { return version_of(name); });
  return related;
}

Result<void> fit_to_host(const VmDescription& machine, const HostFacts& host, const MachineChoice& choice,
                         DomainRewrite& changes) {
  DISKFERRY_TRY(changes.cpu_xml, cpu_xml_of(choice.cpu));
  changes.machine = choice.machine_type;
  VmDescription wanted = machine;
  if (!choice.machine_type.empty()) wanted.machine = choice.machine_type;
  const GuestSupport* support = support_for(wanted, host);
  if (!choice.keeps_emulator && support != nullptr && !machine.emulator.empty() &&
      support->emulator != machine.emulator)
    changes.emulator = support->emulator;
  changes.host_cpus = host.cpus;
  return {};
}

}  // namespace diskferry
