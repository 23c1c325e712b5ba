// A migration in libvirt's terms: flags and typed parameters. Pure; the call itself is in
// libvirt_migration.cpp.
#pragma once

#include "gateway/hypervisor/libvirt.hpp"
#include "gateway/hypervisor/libvirt_parameters.hpp"

#include <cstdint>

namespace diskferry {

/// The virDomainMigrateFlags of a migration, peer to peer always.
unsigned migration_flags(const LibvirtMigration& migration) noexcept;
void add_migration_parameters(const LibvirtMigration& migration, LibvirtParameters& into);
/// libvirt counts bandwidth in MiB/s: rounded down, so that the bound holds, but to 1 at least. 0 bytes,
/// which is no bound, becomes the most that libvirt takes.
std::uint64_t bandwidth_mib_per_s(std::uint64_t bytes_per_s) noexcept;
/// Errors: invalid_argument, where two wishes contradict each other or libvirt would refuse them only late.
Result<void> check_migration(const LibvirtMigration& migration);

}  // namespace diskferry
