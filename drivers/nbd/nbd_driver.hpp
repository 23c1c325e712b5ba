// The NBD client: exports of NBD servers as block devices, over TCP or UNIX sockets, in clear text or TLS.
#pragma once

#include "diskferry/driver.hpp"

namespace diskferry {

/// nbd://host[:port]/export, nbds://, nbd+unix:///export?socket=PATH, nbds+unix://; keys in endpoint.hpp.
extern const Driver nbd_driver;

}  // namespace diskferry
