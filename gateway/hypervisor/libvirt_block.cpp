// Jobs and counters of disks, and how fast memory is dirtied.
#include "gateway/hypervisor/libvirt_connection.hpp"
#include "gateway/hypervisor/libvirt_error.hpp"
#include "gateway/hypervisor/libvirt_parameters.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
constexpr unsigned dirty_rate_seconds_max = 60;
constexpr Duration dirty_rate_poll = std::chrono::milliseconds(200);
/// How long after the measured time its figure may come.
constexpr Duration dirty_rate_late_max = std::chrono::seconds(10);

Result<void> begin_copy(virConnectPtr connection, virDomainPtr domain, const LibvirtBlockCopy& copy) {
  LibvirtParameters parameters;
  if (copy.bytes_per_s > 0) parameters.add(VIR_DOMAIN_BLOCK_COPY_BANDWIDTH, copy.bytes_per_s);
  if (copy.granularity_bytes > 0)
    parameters.add_uint(VIR_DOMAIN_BLOCK_COPY_GRANULARITY, copy.granularity_bytes);
  // A persistent domain takes only a job that a restart of the machine would not outlive.
  unsigned flags = VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
  if (copy.synchronous_writes) flags |= VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES;
  return check_libvirt(virDomainBlockCopy(domain, copy.target.c_str(), copy.disk_xml.c_str(),
                                          parameters.data(), static_cast<int>(parameters.size()), flags),
                       connection, "copy a disk", domain);
}

Result<std::optional<LibvirtBlockJob>> read_block_job(virConnectPtr connection, virDomainPtr domain,
                                                      const std::string& target) {
  virDomainBlockJobInfo info{};
  const int found = virDomainGetBlockJobInfo(domain, target.c_str(), &info, 0);
  DISKFERRY_CHECK(check_libvirt(found, connection, "ask for a disk's job", domain));
  if (found == 0) return std::nullopt;
  return LibvirtBlockJob{.is_copy = info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY ||
                                    info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
                         .done_bytes = info.cur,
                         .total_bytes = info.end,
                         .is_all_copied = info.end > 0 && info.cur == info.end};
}

Result<LibvirtDiskCounters> read_counters(virConnectPtr connection, virDomainPtr domain,
                                          const std::string& target) {
  virDomainBlockStatsStruct stats{};
  DISKFERRY_CHECK(check_libvirt(virDomainBlockStats(domain, target.c_str(), &stats, sizeof stats), connection,
                                "ask for a disk's counters", domain));
  // What a driver does not count is -1.
  const auto counted = [](long long value) { return static_cast<std::uint64_t>(std::max(value, 0LL)); };
  return LibvirtDiskCounters{.read_requests = counted(stats.rd_req),
                             .read_bytes = counted(stats.rd_bytes),
                             .write_requests = counted(stats.wr_req),
                             .written_bytes = counted(stats.wr_bytes)};
}

/// nullopt while it is being measured.
Result<std::optional<std::uint64_t>> read_dirty_rate(virConnectPtr connection, virDomainPtr domain) {
  std::array<virDomainPtr, 2> domains{domain, nullptr};
  virDomainStatsRecordPtr* records = nullptr;
  const int number = virDomainListGetStats(domains.data(), VIR_DOMAIN_STATS_DIRTYRATE, &records, 0);
  DISKFERRY_CHECK(check_libvirt(number, connection, "ask how fast memory is dirtied", domain));
  const std::unique_ptr<virDomainStatsRecordPtr, decltype(&virDomainStatsRecordListFree)> owner(
      records, &virDomainStatsRecordListFree);
  if (number == 0) return std::nullopt;
  const auto status = parameter_number(records[0]->params, records[0]->nparams, "dirtyrate.calc_status");
  if (status != VIR_DOMAIN_DIRTYRATE_MEASURED) return std::nullopt;
  const auto mib =
      parameter_number(records[0]->params, records[0]->nparams, "dirtyrate.megabytes_per_second");
  return mib.value_or(0) << 20;
}
}  // namespace

Task<Result<void>> Libvirt::start_block_copy(std::string domain, LibvirtBlockCopy copy) {
  return connection_->on_domain<void>("copy a disk", std::move(domain),
                                      [copy = std::move(copy)](auto* connection, auto* found) {
                                        return begin_copy(connection, found, copy);
                                      });
}

Task<Result<std::optional<LibvirtBlockJob>>> Libvirt::block_job(std::string domain, std::string target) {
  return connection_->on_domain<std::optional<LibvirtBlockJob>>(
      "ask for a disk's job", std::move(domain), [target = std::move(target)](auto* connection, auto* found) {
        return read_block_job(connection, found, target);
      });
}

Task<Result<void>> Libvirt::pivot_block_copy(std::string domain, std::string target) {
  return connection_->on_domain<void>(
      "go over to a copy", std::move(domain), [target = std::move(target)](auto* connection, auto* found) {
        return check_libvirt(virDomainBlockJobAbort(found, target.c_str(), VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT),
                             connection, "go over to a copy", found);
      });
}

Task<Result<void>> Libvirt::cancel_block_job(std::string domain, std::string target) {
  return connection_->on_domain<void>("end a disk's job", std::move(domain),
                                      [target = std::move(target)](auto* connection, auto* found) {
                                        return check_libvirt(virDomainBlockJobAbort(found, target.c_str(), 0),
                                                             connection, "end a disk's job", found);
                                      });
}

Task<Result<void>> Libvirt::set_block_job_speed(std::string domain, std::string target,
                                                std::uint64_t bytes_per_s) {
  return connection_->on_domain<void>(
      "bound a disk's job", std::move(domain),
      [target = std::move(target), bytes_per_s](auto* connection, auto* found) {
        return check_libvirt(virDomainBlockJobSetSpeed(found, target.c_str(), bytes_per_s,
                                                       VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES),
                             connection, "bound a disk's job", found);
      });
}

Task<Result<std::string>> Libvirt::monitor_command(std::string domain, std::string command) {
  return connection_->on_domain<std::string>(
      "ask QEMU", std::move(domain),
      [command = std::move(command)](auto* connection, auto* found) -> Result<std::string> {
        char* answer = nullptr;
        const int done = virDomainQemuMonitorCommand(found, command.c_str(), &answer, 0);
        const std::unique_ptr<char, decltype(&std::free)> owner(answer, &std::free);
        DISKFERRY_CHECK(check_libvirt(done, connection, "ask QEMU", found));
        return answer == nullptr ? std::string() : std::string(answer);
      });
}

Task<Result<LibvirtDiskCounters>> Libvirt::disk_counters(std::string domain, std::string target) {
  return connection_->on_domain<LibvirtDiskCounters>(
      "ask for a disk's counters", std::move(domain),
      [target = std::move(target)](auto* connection, auto* found) {
        return read_counters(connection, found, target);
      });
}

Task<Result<std::uint64_t>> Libvirt::dirty_bytes_per_s(std::string domain, unsigned seconds) {
  constexpr auto operation = "ask how fast memory is dirtied";
  const int measured_s = static_cast<int>(std::clamp(seconds, 1U, dirty_rate_seconds_max));
  DISKFERRY_CO_CHECK(
      co_await connection_->on_domain<void>(operation, domain, [measured_s](auto* connection, auto* found) {
        return check_libvirt(virDomainStartDirtyRateCalc(found, measured_s, 0), connection, operation, found);
      }));
  Clock& clock = connection_->context.clock;
  const auto latest = Clock::after(clock.now(), std::chrono::seconds(measured_s) + dirty_rate_late_max);
  DISKFERRY_CO_CHECK(co_await clock.sleep_for(std::chrono::seconds(measured_s)));
  while (true) {
    DISKFERRY_CO_TRY(const auto rate, co_await connection_->on_domain<std::optional<std::uint64_t>>(
                                          operation, domain, read_dirty_rate));
    if (rate) co_return *rate;
    if (clock.now() >= latest) co_return unexpected(fail(ErrorKind::timed_out, operation, std::move(domain)));
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(dirty_rate_poll));
  }
}

}  // namespace diskferry
