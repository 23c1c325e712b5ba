// Domain XML of libvirt, read and rewritten without a connection: text in, values or text out. Called by
// whoever plans a move, makes its destination or shows the difference; nothing here opens a file, a socket or
// an entity.
#pragma once

#include "diskferry/image_uri.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace diskferry {

/// All that a definition says; state, persistence and snapshots are the hypervisor's to fill in. The XML may
/// be hostile: texts are as they were found, and printable() is for showing them. Errors: corrupt (no XML, no
/// domain, or one that contradicts itself), too_large, unsupported (a document type).
Result<VmDescription> read_domain(std::string_view xml);

/// What libvirt's migration calls the export of a disk when it has QEMU mirror it: "drive-virtio-disk0".
/// Empty for a disk without an alias, which is one of a machine that does not run.
std::string drive_export_name(const VmDisk& disk);

// Where a disk is to be. Paths are absolute and on the destination host.

struct FileDiskSource {
  std::string path{};
  std::string format{};  ///< "raw", "qcow2", ...
};
struct BlockDiskSource {
  std::string path{};
  std::string format{};
};
/// An NBD export, over TCP or, where `socket` is set, over a UNIX socket on the destination host. Its format
/// is raw.
struct NbdDiskSource {
  std::string host{};
  std::uint16_t port = 10809;
  std::string socket{};
  std::string export_name{};
  bool tls = false;  ///< with the certificates of libvirt's own configuration (nbd_tls_x509_cert_dir)
  std::string tls_hostname{};  ///< the name in the server's certificate, where it is not `host`
};
/// Storage that QEMU reaches by itself: rbd, iscsi, nfs or gluster.
struct UriDiskSource {
  ImageUri uri{};
  std::string format{};
  std::string
      secret_uuid{};  ///< of libvirt's secret with the password or key; needed where the URI names a user
};
using DiskSource = std::variant<FileDiskSource, BlockDiskSource, NbdDiskSource, UriDiskSource>;

/// The source for an image as operators name it. `is_block_device` tells what a path names, which only its
/// host knows. Errors: invalid_argument, unsupported (a scheme QEMU cannot use by way of libvirt).
Result<DiskSource> disk_source(const ImageUri& uri, std::string format, bool is_block_device,
                               std::string secret_uuid = {});

struct DiskRewrite {
  std::string target{};  ///< "vda"
  DiskSource source{};
  std::string cache{};  ///< the new cache mode; empty: as it was
  /// So many bytes at the start of a raw source are the disk, which is larger than that; 0: all of it.
  std::uint64_t slice_bytes = 0;
};

struct DomainRewrite {
  std::vector<DiskRewrite> disks{};
  /// Targets that are meant to stay as they are. Others that are not in `disks` stay too, but with a warning.
  std::vector<std::string> keep_disks{};
  /// Networks, bridges and host interfaces, by what they are called at the destination.
  std::map<std::string, std::string> networks{};
  std::string name{};      ///< empty: as it was, as in all of these
  std::string emulator{};  ///< path of the QEMU binary there
  std::string machine{};   ///< for machines that start anew only
  std::string cpu_xml{};   ///< a <cpu> element that replaces the old one; for machines that start anew only
  /// Without what libvirt adds while a machine runs (aliases, terminals, ports), for a definition that stays.
  bool is_persistent_form = false;
  /// CPUs of the destination. Placement on others is taken out, and with it shares of caches and memory
  /// bandwidth. 0: not known, nothing is taken out.
  unsigned host_cpus = 0;
};

struct RewrittenDomain {
  std::string xml{};
  std::vector<std::string> warnings{};  ///< one line each, safe to show
};

/// The definition for the destination. A rewritten disk keeps its slot, alias, serial and driver options; its
/// old source, backing chain and what belongs to the old host go. The domain's id and generated security
/// labels go. All else stays as it is, in order and layout. Errors: as read_domain, and not_found (no such
/// disk), invalid_argument (a disk named twice, a value that cannot be written), unsupported (a disk whose
/// kind cannot have such a source).
Result<RewrittenDomain> rewrite_domain(std::string_view xml, const DomainRewrite& changes);

/// The <disk> element for a copy of a running disk to another place (LibvirtBlockCopy::disk_xml). Where
/// libvirt knows how, QEMU waits `reconnect_s` for an NBD server that is away. Errors: as disk_source().
Result<std::string> block_copy_xml(const DiskRewrite& copy, unsigned reconnect_s);

/// What a disk with that source is said to be on (VmDisk::source). Errors: as disk_source().
Result<std::string> source_name(const DiskSource& source);

/// Both documents laid out line by line and compared as `diff -u` does, with three lines of context;
/// passwords are masked. Empty where they are equal. Where they differ in more than xml_diff_edits_max lines,
/// what lies between the common beginning and end is shown as removed and added.
inline constexpr std::size_t xml_diff_edits_max = 1000;
std::string xml_diff(std::string_view before, std::string_view after);

}  // namespace diskferry
