// Flags and parameters of virDomainMigrateToURI3.
#include "gateway/hypervisor/libvirt_migration.hpp"

#include <algorithm>

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
constexpr std::uint64_t bytes_per_mib = std::uint64_t{1} << 20;
/// What libvirt itself starts with: "as fast as the network".
constexpr std::uint64_t mib_per_s_max = static_cast<std::uint64_t>(INT64_MAX) / bytes_per_mib;
constexpr unsigned parallel_connections_max = 255;  // QEMU's multifd-channels is a byte
}  // namespace

std::uint64_t bandwidth_mib_per_s(std::uint64_t bytes_per_s) noexcept {
  if (bytes_per_s == 0) return mib_per_s_max;
  return std::clamp(bytes_per_s / bytes_per_mib, std::uint64_t{1}, mib_per_s_max);
}

unsigned migration_flags(const LibvirtMigration& migration) noexcept {
  unsigned flags = VIR_MIGRATE_PEER2PEER;
  const auto set_when = [&flags](bool wanted, unsigned flag) { flags |= wanted ? flag : 0U; };
  const bool copies_disks = !migration.disks.empty();
  set_when(migration.is_live, VIR_MIGRATE_LIVE);
  set_when(copies_disks, VIR_MIGRATE_NON_SHARED_DISK);
  set_when(copies_disks && migration.synchronous_disk_writes, VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES);
  // By its name it says more than it does: libvirt leaves out its look at file systems and cache modes.
  set_when(migration.is_storage_proved, VIR_MIGRATE_UNSAFE);
  set_when(migration.persist_destination, VIR_MIGRATE_PERSIST_DEST);
  set_when(migration.arrives_paused, VIR_MIGRATE_PAUSED);
  set_when(migration.undefine_source, VIR_MIGRATE_UNDEFINE_SOURCE);
  set_when(migration.tls, VIR_MIGRATE_TLS);
  set_when(migration.auto_converge, VIR_MIGRATE_AUTO_CONVERGE);
  set_when(migration.post_copy, VIR_MIGRATE_POSTCOPY);
  set_when(migration.parallel_connections > 0, VIR_MIGRATE_PARALLEL);
  set_when(!migration.compression.empty(), VIR_MIGRATE_COMPRESSED);
  return flags;
}

void add_migration_parameters(const LibvirtMigration& migration, LibvirtParameters& into) {
  into.add(VIR_MIGRATE_PARAM_DEST_XML, migration.destination_xml);
  into.add(VIR_MIGRATE_PARAM_PERSIST_XML, migration.persistent_xml);
  for (const auto& disk : migration.disks) into.add(VIR_MIGRATE_PARAM_MIGRATE_DISKS, disk);
  if (!migration.disks.empty()) into.add(VIR_MIGRATE_PARAM_DISKS_URI, migration.disks_uri);
  into.add(VIR_MIGRATE_PARAM_URI, migration.memory_uri);
  into.add(VIR_MIGRATE_PARAM_COMPRESSION, migration.compression);
  if (migration.tls) into.add(VIR_MIGRATE_PARAM_TLS_DESTINATION, migration.tls_destination);
  if (migration.memory_bytes_per_s > 0)
    into.add(VIR_MIGRATE_PARAM_BANDWIDTH, bandwidth_mib_per_s(migration.memory_bytes_per_s));
  if (migration.parallel_connections > 0)
    into.add_int(VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, static_cast<int>(migration.parallel_connections));
}

Result<void> check_migration(const LibvirtMigration& migration) {
  const auto refuse = [&migration](std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "migrate", migration.domain).why(std::move(why)));
  };
  if (migration.destination.empty()) return refuse("there is no destination");
  if (!migration.persistent_xml.empty() && !migration.persist_destination)
    return refuse("a definition that stays was given, but none is to stay");
  if (migration.parallel_connections > parallel_connections_max)
    return refuse("too many parallel connections");
  if (migration.arrives_paused && migration.post_copy)
    return refuse("post-copy is for a guest that runs at once");
  if (migration.tls && !migration.disks.empty() && migration.disks_uri.starts_with("unix:"))
    return refuse("libvirt cannot encrypt the memory while disks are copied by way of a UNIX socket");
  return {};
}

}  // namespace diskferry
