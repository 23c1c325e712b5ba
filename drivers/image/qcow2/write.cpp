// The writing verbs. Images are opened for reading only.
#include "drivers/image/qcow2/device.hpp"

namespace diskferry::qcow2 {

class Writer {};

Qcow2Device::~Qcow2Device() = default;

Task<Result<void>> Qcow2Device::open_for_writing(DriverContext&, DeviceParts) {
  co_return unexpected(fail(ErrorKind::unsupported, "open for writing", image_.name)
                           .why("qcow2 images are opened for reading only"));
}

Task<Result<void>> Qcow2Device::write(std::uint64_t, std::span<const std::byte>, WriteFlags) {
  co_return unexpected(fail(ErrorKind::read_only, "write", image_.name));
}
Task<Result<void>> Qcow2Device::write_zeroes(Range, ZeroFlags) {
  co_return unexpected(fail(ErrorKind::read_only, "zero", image_.name));
}
Task<Result<void>> Qcow2Device::discard(Range) {
  co_return unexpected(fail(ErrorKind::read_only, "discard", image_.name));
}
Task<Result<void>> Qcow2Device::flush() {
  co_return Result<void>{};
}
Task<Result<void>> Qcow2Device::close() {
  co_return co_await close_below();
}

}  // namespace diskferry::qcow2
