// Whether a host is there at all: a TCP connection that it takes, or refuses, is an answer. Silence proves
// nothing; a host that answers is certainly not off.
#pragma once

#include "diskferry/driver.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace diskferry {

struct HostAnswer {
  bool has_address = false;  ///< its name could be looked up
  bool answers = false;
  std::uint16_t port = 0;  ///< which answered
  bool refused = false;    ///< nobody listens there, said its kernel
};

/// Tries all ports at once. Bounded by `limit` and by the resolver's own.
Task<HostAnswer> probe_host(DriverContext& context, std::string host, std::vector<std::uint16_t> ports,
                            Duration limit);

}  // namespace diskferry
