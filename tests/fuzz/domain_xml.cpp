// Domain XML comes from other hosts' daemons and from files of operators. Reading must answer any text; what
// it accepts must survive a rewrite: the result is read again, its disks lie where they were sent, and what
// is shown to people has no control characters.
#include "gateway/hypervisor/domain_xml.hpp"

#include "diskferry/assert.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace {
using namespace diskferry;

bool is_fit_to_show(std::string_view text) {
  return std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// Moves every disk that can be moved, in a way that depends on its place.
DomainRewrite changes_for(const VmDescription& vm) {
  DomainRewrite changes{.networks = {{"default", "other"}, {"br0", "br1"}}, .name = "moved"};
  changes.is_persistent_form = vm.disks.size() % 2 == 1;
  changes.host_cpus = vm.vcpus % 5;
  for (const VmDisk& disk : vm.disks) {
    if (disk.source_type == "vhostuser" || disk.source_type == "vhostvdpa") continue;
    const bool is_block = disk.device == "lun" || changes.disks.size() % 3 == 2;
    DiskSource source = NbdDiskSource{.socket = "/run/gw", .export_name = "x"};
    if (is_block) {
      source = BlockDiskSource{"/dev/new", "raw"};
    } else if (changes.disks.size() % 3 == 1) {
      source = FileDiskSource{"/new.qcow2", "qcow2"};
    }
    changes.disks.push_back({.target = disk.target, .source = source});
  }
  return changes;
}

/// Without the space between elements: where text stands beside elements the printer leaves out its own.
std::string without_indentation(std::string_view xml) {
  std::string bare;
  for (std::size_t at = 0; at < xml.size();) {
    bare += xml[at++];
    if (bare.back() != '>') continue;
    const std::size_t next = xml.find_first_not_of(" \n", at);
    if (next != std::string_view::npos && xml[next] == '<') at = next;
  }
  return bare;
}

void check_result(const RewrittenDomain& result, const DomainRewrite& changes) {
  DISKFERRY_ASSERT(std::ranges::all_of(result.warnings, is_fit_to_show),
                   "a warning has no control characters");
  if (result.xml.size() > domain_xml_bytes_max) return;
  const auto again = read_domain(result.xml);
  DISKFERRY_ASSERT(again.has_value(), "a rewritten domain can be read");
  DISKFERRY_ASSERT(again->name == "moved", "it has its new name");
  for (const DiskRewrite& change : changes.disks) {
    const auto disk = std::ranges::find(again->disks, change.target, &VmDisk::target);
    DISKFERRY_ASSERT(disk != again->disks.end(), "a disk keeps its target");
    DISKFERRY_ASSERT(disk->source == "/dev/new" || disk->source == "/new.qcow2" ||
                         disk->source == "nbd+unix:///x?socket=/run/gw",
                     "a disk lies where it was sent");
    DISKFERRY_ASSERT(disk->backing.empty() && !disk->is_encrypted && !disk->has_block_job,
                     "nothing of its old source is left");
  }
  const auto twice = rewrite_domain(result.xml, changes);
  DISKFERRY_ASSERT(twice.has_value(), "a rewritten domain can be rewritten");
  // pugixml prints an escaped carriage return in a text as it is, which is then read as a line break.
  // The persistent form takes one of each away, where libvirt never has two.
  const bool is_exact = !result.xml.contains('\r') && !changes.is_persistent_form;
  DISKFERRY_ASSERT(!is_exact || without_indentation(twice->xml) == without_indentation(result.xml),
                   "a second rewrite changes nothing");
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto vm = read_domain(text);
  if (!vm) {
    DISKFERRY_ASSERT(is_fit_to_show(vm.error().message()), "a message has no control characters");
    return 0;
  }
  const auto changes = changes_for(*vm);
  const auto result = rewrite_domain(text, changes);
  if (!result) {
    DISKFERRY_ASSERT(is_fit_to_show(result.error().message()), "a message has no control characters");
    return 0;
  }
  check_result(*result, changes);
  (void)xml_diff(text, result->xml);
  return 0;
}
