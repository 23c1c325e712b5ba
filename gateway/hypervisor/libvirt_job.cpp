// The job a domain is in: its statistics and the few knobs that work while it runs.
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"
#include "gateway/hypervisor/libvirt_migration.hpp"
#include "gateway/hypervisor/libvirt_parameters.hpp"

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
std::string phase_of(int type, const LibvirtJob& job) {
  switch (type) {
    case VIR_DOMAIN_JOB_COMPLETED:
      return "completed";
    case VIR_DOMAIN_JOB_FAILED:
      return "failed";
    case VIR_DOMAIN_JOB_CANCELLED:
      return "cancelled";
    case VIR_DOMAIN_JOB_NONE:
      return "";
    default:
      break;
  }
  // Disks come first; the memory's totals appear when its turn has come.
  if (job.memory_total_bytes > 0) return "memory";
  return job.disk_total_bytes > 0 ? "disk" : "prepare";
}

LibvirtJob job_from(int type, const LibvirtParameters& parameters) {
  const auto number = [&parameters](const char* name) { return parameters.number(name).value_or(0); };
  LibvirtJob job;
  job.is_active = type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED;
  job.memory_total_bytes = number(VIR_DOMAIN_JOB_MEMORY_TOTAL);
  job.memory_processed_bytes = number(VIR_DOMAIN_JOB_MEMORY_PROCESSED);
  job.memory_remaining_bytes = number(VIR_DOMAIN_JOB_MEMORY_REMAINING);
  job.memory_bytes_per_s = number(VIR_DOMAIN_JOB_MEMORY_BPS);
  job.memory_dirty_pages_per_s = number(VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE);
  job.page_bytes = number(VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE);
  job.memory_iterations = number(VIR_DOMAIN_JOB_MEMORY_ITERATION);
  job.disk_total_bytes = number(VIR_DOMAIN_JOB_DISK_TOTAL);
  job.disk_processed_bytes = number(VIR_DOMAIN_JOB_DISK_PROCESSED);
  job.disk_remaining_bytes = number(VIR_DOMAIN_JOB_DISK_REMAINING);
  job.downtime_ms = parameters.number(VIR_DOMAIN_JOB_DOWNTIME);
  job.setup_ms = parameters.number(VIR_DOMAIN_JOB_SETUP_TIME);
  job.elapsed_ms = number(VIR_DOMAIN_JOB_TIME_ELAPSED);
  job.phase = phase_of(type, job);
  return job;
}

Result<LibvirtJob> read_job(virConnectPtr connection, virDomainPtr domain, unsigned flags) {
  int type = VIR_DOMAIN_JOB_NONE;
  LibvirtParameters parameters;
  DISKFERRY_CHECK(
      check_libvirt(virDomainGetJobStats(domain, &type, parameters.items(), parameters.count(), flags),
                    connection, "ask for its job", domain));
  return job_from(type, parameters);
}
}  // namespace

Task<Result<LibvirtJob>> Libvirt::job(std::string domain) {
  return connection_->on_domain<LibvirtJob>(
      "ask for its job", std::move(domain),
      [](auto* connection, auto* found) { return read_job(connection, found, 0); });
}

Task<Result<LibvirtJob>> Libvirt::completed_job(std::string domain) {
  return connection_->on_domain<LibvirtJob>(
      "ask for its last job", std::move(domain), [](auto* connection, auto* found) {
        return read_job(connection, found,
                        VIR_DOMAIN_JOB_STATS_COMPLETED | VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED);
      });
}

Task<Result<void>> Libvirt::abort_job(std::string domain) {
  return connection_->on_domain<void>("abort its job", std::move(domain), [](auto* connection, auto* found) {
    return check_libvirt(virDomainAbortJob(found), connection, "abort its job", found);
  });
}

Task<Result<void>> Libvirt::set_memory_bytes_per_s(std::string domain, std::uint64_t bytes_per_s) {
  return connection_->on_domain<void>(
      "bound the migration", std::move(domain), [bytes_per_s](auto* connection, auto* found) {
        const auto mib_per_s = static_cast<unsigned long>(bandwidth_mib_per_s(bytes_per_s));
        return check_libvirt(virDomainMigrateSetMaxSpeed(found, mib_per_s, 0), connection,
                             "bound the migration", found);
      });
}

Task<Result<void>> Libvirt::set_downtime_max_ms(std::string domain, std::uint64_t ms) {
  return connection_->on_domain<void>("bound the downtime", std::move(domain),
                                      [ms](auto* connection, auto* found) {
                                        return check_libvirt(virDomainMigrateSetMaxDowntime(found, ms, 0),
                                                             connection, "bound the downtime", found);
                                      });
}

Task<Result<void>> Libvirt::start_post_copy(std::string domain) {
  return connection_->on_domain<void>(
      "start post-copy", std::move(domain), [](auto* connection, auto* found) {
        return check_libvirt(virDomainMigrateStartPostCopy(found, 0), connection, "start post-copy", found);
      });
}

}  // namespace diskferry
