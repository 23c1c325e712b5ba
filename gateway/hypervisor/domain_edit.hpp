// The parts of rewrite_domain() that are files of their own; for domain_rewrite.cpp only.
#pragma once

#include "gateway/hypervisor/domain_xml.hpp"

namespace pugi {
class xml_node;
}

namespace diskferry {

using Warnings = std::vector<std::string>;

// A new source: its type and format as XML names them, whether it makes sense, and its attributes and
// elements.
const char* type_of(const DiskSource& source);
std::string_view format_of(const DiskSource& source);
/// Errors: invalid_argument, unsupported (a scheme QEMU cannot use by way of libvirt).
Result<void> check_source(const DiskRewrite& change);
void write_source(pugi::xml_node source, const DiskSource& from);
/// The disk is the start of storage that is larger: the guest must not see the rest.
void write_slice(pugi::xml_node source, std::uint64_t bytes);

/// Gives a <disk> its new source and takes away what belonged to the old one.
/// Errors: invalid_argument, unsupported.
Result<void> rewrite_disk(pugi::xml_node disk, const DiskRewrite& change, Warnings& warnings);

/// Takes away the labels that a security driver made up for the running machine.
void remove_generated_labels(pugi::xml_node domain);

/// Takes away what libvirt adds while a machine runs.
void make_persistent_form(pugi::xml_node domain);

/// Takes away placement on CPUs that a host with `host_cpus` CPUs does not have.
void fit_placement(pugi::xml_node domain, unsigned host_cpus, Warnings& warnings);

/// Whether XML can hold the text, and a line of a log too: UTF-8 without control characters.
bool is_plain_text(std::string_view text);

}  // namespace diskferry
