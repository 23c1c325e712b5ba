#include "gateway/move/domain_disk.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/image_uri.hpp"
#include "gateway/hypervisor/nbd_reconnect.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// How long a guest's requests wait for a gateway that is away. A restart takes seconds, an update a minute
/// or two. QEMU's monitor waits with the guest when it is asked for something about the disk, so that it is
/// not for ever.
constexpr unsigned reconnect_s = 300;
Error no_disk(const DomainDiskNames& names) {
  return fail(ErrorKind::not_found, "find the disk", printable(names.domain + ":" + names.disk))
      .why("the machine has no such disk")
      .remedy("see virsh domblklist for its disks");
}

}  // namespace

DiskPlace place_of(const VmDisk& disk, const std::string& target) {
  if (target.empty()) return DiskPlace::source;
  if (disk.source == target) return DiskPlace::target;
  return disk.mirror && disk.mirror->source == target ? DiskPlace::copying : DiskPlace::source;
}

DomainDisk::DomainDisk(DriverContext& context, DomainDiskNames names)
    : context_(context),
      names_(std::move(names)),
      target_name_(source_name(names_.target).value_or(std::string())) {}
DomainDisk::~DomainDisk() {
  DISKFERRY_ASSERT(libvirt_ == nullptr, "a domain's disk is closed before it is destroyed");
}

/// `call(libvirt)` is a task of it.
template <class T, class Call>
Task<Result<T>> DomainDisk::ask(Call call) {
  if (!libvirt_) {
    auto connected = co_await Libvirt::connect(context_, names_.hypervisor);
    if (!connected)
      co_return unexpected(std::move(connected).error().in("reach the hypervisor of this host"));
    libvirt_ = *std::move(connected);
  }
  auto answer = co_await call(*libvirt_);
  if (!answer && answer.error().kind() == ErrorKind::gone) co_await close();
  co_return answer;
}

Task<Result<VmDescription>> DomainDisk::machine() {
  co_return co_await ask<VmDescription>([this](Libvirt& to) { return to.describe(names_.domain); });
}

Task<Result<std::uint64_t>> DomainDisk::size_bytes() {
  co_return co_await ask<std::uint64_t>(
      [this](Libvirt& to) { return to.disk_bytes(names_.domain, names_.disk); });
}

Task<Result<std::uint64_t>> DomainDisk::libvirt_version() {
  DISKFERRY_CO_TRY(const LibvirtHost host, co_await ask<LibvirtHost>([](Libvirt& to) { return to.host(); }));
  co_return host.libvirt_version;
}

Task<Result<bool>> DomainDisk::is_machine_busy() {
  DISKFERRY_CO_TRY(const LibvirtJob job,
                   co_await ask<LibvirtJob>([this](Libvirt& to) { return to.job(names_.domain); }));
  co_return job.is_active;
}

Task<Result<DomainDiskView>> DomainDisk::look(bool asks_job) {
  DISKFERRY_CO_TRY(const VmDescription found, co_await machine());
  const auto disk = std::ranges::find(found.disks, names_.disk, &VmDisk::target);
  if (disk == found.disks.end()) co_return unexpected(no_disk(names_));
  DomainDiskView view{.place = place_of(*disk, target_name_), .machine = found.state, .disk = *disk};
  if (!asks_job || !is_alive(found.state)) co_return view;
  DISKFERRY_CO_TRY(view.job, co_await ask<std::optional<LibvirtBlockJob>>(
                                 [this](Libvirt& to) { return to.block_job(names_.domain, names_.disk); }));
  co_return view;
}

Task<Result<void>> DomainDisk::start_copy(std::uint64_t bytes_per_s, std::uint64_t part_bytes) {
  const DiskRewrite place{.target = names_.disk, .source = names_.target, .slice_bytes = part_bytes};
  DISKFERRY_CO_TRY(const std::string xml, block_copy_xml(place, reconnect_s));
  const LibvirtBlockCopy copy{
      .target = names_.disk, .disk_xml = xml, .bytes_per_s = bytes_per_s, .synchronous_writes = true};
  co_return co_await ask<void>(
      [this, &copy](Libvirt& to) { return to.start_block_copy(names_.domain, copy); });
}

Task<Result<void>> DomainDisk::set_bytes_per_s(std::uint64_t bytes_per_s) {
  co_return co_await ask<void>([this, bytes_per_s](Libvirt& to) {
    return to.set_block_job_speed(names_.domain, names_.disk, bytes_per_s);
  });
}

Task<Result<void>> DomainDisk::wait_for_gateway() {
  const auto* to = std::get_if<NbdDiskSource>(&names_.target);
  if (to == nullptr) co_return unexpected(fail(ErrorKind::internal, "have QEMU wait for the gateway"));
  DISKFERRY_CO_TRY(const DomainDiskView now, co_await look(false));
  const bool is_over = now.place == DiskPlace::target;
  const unsigned node = is_over ? now.disk.node_index : now.disk.mirror ? now.disk.mirror->node_index : 0;
  if (node == 0)
    co_return unexpected(fail(ErrorKind::unsupported, "have QEMU wait for the gateway")
                             .why("libvirt does not tell which of QEMU's nodes the disk is")
                             .remedy("use libvirt 9.0 or later"));
  const NbdReconnect wanted{.node_index = node,
                            .socket = to->socket,
                            .export_name = to->export_name,
                            .delay_s = reconnect_s,
                            .discards = now.disk.discards};
  auto done = co_await ask<void>(
      [this, &wanted](Libvirt& to) { return have_nbd_reconnect(to, names_.domain, wanted); });
  if (!done) co_return unexpected(std::move(done).error().in("have QEMU wait for the gateway"));
  co_return done;
}

Task<void> DomainDisk::forget_connection(unsigned node_index) {
  const auto forgotten = co_await ask<void>(
      [this, node_index](Libvirt& to) { return forget_nbd_reconnect(to, names_.domain, node_index); });
  if (!forgotten)
    spdlog::info("{}:{}: a connection to the gateway stays in QEMU: {}", printable(names_.domain),
                 printable(names_.disk), forgotten.error().message());
}

Task<Result<void>> DomainDisk::go_over() {
  co_return co_await ask<void>(
      [this](Libvirt& to) { return to.pivot_block_copy(names_.domain, names_.disk); });
}

Task<Result<void>> DomainDisk::end_copy() {
  DISKFERRY_CO_TRY(const DomainDiskView now, co_await look(false));
  auto ended =
      co_await ask<void>([this](Libvirt& to) { return to.cancel_block_job(names_.domain, names_.disk); });
  if (ended && now.disk.mirror && now.disk.mirror->node_index != 0)
    co_await forget_connection(now.disk.mirror->node_index);
  co_return ended;
}

Task<Result<void>> DomainDisk::end_copy_if_any(DiskPlace& found) {
  DISKFERRY_CO_TRY(const DomainDiskView now, co_await look(false));
  found = now.place;
  if (now.place != DiskPlace::copying) co_return Result<void>{};
  co_return co_await end_copy();
}

Task<Result<void>> DomainDisk::keep_definition(std::uint64_t part_bytes) {
  DISKFERRY_CO_TRY(const VmDescription found, co_await machine());
  if (!found.is_persistent) co_return Result<void>{};
  DISKFERRY_CO_TRY(const std::string xml, co_await ask<std::string>([this](Libvirt& to) {
                     return to.xml(names_.domain, Libvirt::Xml::inactive);
                   }));
  DISKFERRY_CO_TRY(const VmDescription kept, read_domain(xml));
  const auto disk = std::ranges::find(kept.disks, names_.disk, &VmDisk::target);
  // One that was taken out of it is not put in again.
  if (disk == kept.disks.end() || disk->source == target_name_) co_return Result<void>{};
  DomainRewrite change;
  change.disks.push_back({.target = names_.disk, .source = names_.target, .slice_bytes = part_bytes});
  change.is_persistent_form = true;
  DISKFERRY_CO_TRY(const RewrittenDomain changed, rewrite_domain(xml, change));
  co_return co_await ask<void>([&changed](Libvirt& to) { return to.define(changed.xml); });
}

Task<void> DomainDisk::close() {
  if (!libvirt_) co_return;
  co_await libvirt_->close();
  libvirt_.reset();
}

}  // namespace diskferry
