// The few lines that every test of the NBD client needs.
#pragma once

#include "diskferry/units.hpp"
#include "drivers/registry.hpp"
#include "tests/support/nbd_server.hpp"
#include "tests/support/pattern.hpp"
#include "tests/support/test_runtime.hpp"

#include <string>

namespace diskferry::test {

inline Result<DevicePtr> open_nbd(const std::string& uri, OpenOptions options = {}) {
  return run(open_storage(runtime().context(), must(ImageUri::parse(uri)), options));
}

/// A device that is closed at the end of the test.
class OpenDevice {
 public:
  explicit OpenDevice(const std::string& uri, OpenOptions options = {})
      : device_(must(open_nbd(uri, options))) {}
  ~OpenDevice() { must(run(device_->close())); }
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;
  BlockDevice& operator*() { return *device_; }
  BlockDevice* operator->() { return device_.get(); }

 private:
  DevicePtr device_;
};

}  // namespace diskferry::test
