#include "drivers/gluster/gluster_driver.hpp"

#include "diskferry/units.hpp"
#include "drivers/gluster/on_volume.hpp"
#include "drivers/gluster/schemes.hpp"
#include "drivers/gluster/storage.hpp"

namespace diskferry {
namespace gluster {
namespace {

constexpr std::uint32_t request_bytes_max = 4 * mib;
constexpr unsigned parallel_requests = 32;

class GlusterDevice final : public BlockDevice {
 public:
  GlusterDevice(DriverContext& context, Endpoint endpoint, Purpose purpose)
      : storage_(context, std::move(endpoint), purpose), purpose_(purpose) {}

  Task<Result<void>> open() {
    auto opened = co_await storage_.open();
    if (!opened) {
      co_await storage_.close();
      co_return opened;
    }
    const FileFacts& facts = storage_.facts();
    info_.name = storage_.endpoint().name;
    info_.request_bytes_max = request_bytes_max;
    info_.zero = facts.can_discard ? ZeroSupport::unmapping : ZeroSupport::slow;
    info_.is_read_only = purpose_ != Purpose::write;
    info_.may_lose_unflushed = true;
    info_.can_discard = facts.can_discard;
    info_.can_report_extents = facts.can_seek;
    info_.can_grow = purpose_ == Purpose::write;
    info_.can_multi_connection = true;
    info_.starts_zeroed = facts.is_hole;
    info_.parallel_requests = parallel_requests;
    co_return Result<void>{};
  }

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return storage_.size_bytes(); }

  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override {
    return storage_.read(offset, into);
  }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags) override {
    return storage_.write(offset, from);
  }
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override {
    return storage_.zero(range, flags);
  }
  Task<Result<void>> discard(Range range) override { return storage_.discard(range); }
  Task<Result<void>> flush() override { return storage_.flush(); }
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override {
    return storage_.extents(range, extents_max);
  }
  Task<Result<void>> close() override {
    co_await storage_.close();
    co_return Result<void>{};
  }
  std::uint64_t repeated_requests() const noexcept override { return storage_.repeated_requests(); }
  void stop_waiting() noexcept override { storage_.stop_waiting(); }

 private:
  Storage storage_;
  const Purpose purpose_;
  DeviceInfo info_{};
};

Task<Result<DevicePtr>> open(DriverContext& context, ImageUri uri, OpenOptions options) {
  DISKFERRY_CO_TRY(Endpoint endpoint, parse_endpoint(uri));
  if (options.writable && options.force_share)
    co_return unexpected(fail(ErrorKind::invalid_argument, "open", endpoint.name)
                             .why("an image that others use can be shared for reading only"));
  const Purpose purpose = options.writable      ? Purpose::write
                          : options.force_share ? Purpose::read_shared
                                                : Purpose::read;
  auto device = std::make_unique<GlusterDevice>(context, std::move(endpoint), purpose);
  DISKFERRY_CO_CHECK(co_await device->open());
  co_return device;
}

Task<Result<void>> create(DriverContext& context, ImageUri uri, CreateOptions options) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, parse_endpoint(uri));
  co_return co_await create_file(context.clock, endpoint, options);
}

Task<Result<VolumeFacts>> look(DriverContext& context, ImageUri uri, LookOptions options) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, parse_endpoint(uri));
  co_return co_await look_at_file(context.clock, endpoint, options);
}

Task<Result<void>> remove(DriverContext& context, ImageUri uri) {
  DISKFERRY_CO_TRY(const Endpoint endpoint, parse_endpoint(uri));
  co_return co_await remove_file(context.clock, endpoint);
}

}  // namespace
}  // namespace gluster

const Driver gluster_driver{.scheme = "gluster",
                            .aliases = gluster::aliases,
                            .summary = gluster::summary,
                            .keys = gluster::endpoint_keys,
                            .open = gluster::open,
                            .create = gluster::create,
                            .look = gluster::look,
                            .remove = gluster::remove,
                            .server_request_bytes = 512u << 10};

}  // namespace diskferry
