// A device each of whose writes is durable before it is acknowledged: for as long as a server that is killed
// must not have lost anything that somebody took for written.
#pragma once

#include "diskferry/driver.hpp"

#include <memory>

namespace diskferry {

/// `inner` is behind checked(); put this behind it, too. Closing it does not close `inner`, whose owner goes
/// on with it. What was acknowledged before is for that owner to flush.
DevicePtr make_write_through_device(std::shared_ptr<BlockDevice> inner);

}  // namespace diskferry
