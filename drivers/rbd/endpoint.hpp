// Which image of which Ceph cluster is meant, taken out of a URI. Pure: parsing asks nobody. The fields are
// handed to the library one by one, so that a name cannot switch on anything.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/driver.hpp"

#include <array>
#include <string>

namespace diskferry::rbd {

struct Endpoint {
  std::string name;  ///< for messages: the URI
  std::string pool;
  std::string name_space;  ///< of the pool; empty: the unnamed one
  std::string image;
  std::string snapshot;  ///< empty: the image as it is now
  std::string conf;      ///< file; empty: where Ceph looks for it
  std::string monitors;  ///< addresses, as in the conf; empty: those of the conf
  std::string user = "admin";
  std::string keyring;             ///< file; empty: where the conf says
  std::string data_pool;           ///< of an image to be made; empty: as the conf says
  std::uint64_t object_bytes = 0;  ///< of an image to be made; 0: as the conf says
  /// For connecting, and then for each step of opening.
  Duration connect_limit = std::chrono::seconds(10);
  /// How long a request waits for the cluster. An OSD that died is replaced within a minute by default.
  Duration reconnect_limit = std::chrono::seconds(120);
  /// How long to wait for other clients to let go of an image that is to be written: the cluster counts one
  /// that has died as a user for 30 s by default.
  Duration in_use_limit = std::chrono::seconds(40);
};

inline constexpr std::size_t name_bytes_max = 1024;
inline constexpr std::uint64_t object_bytes_min = 4096;  // librbd's orders, 12 to 25
inline constexpr std::uint64_t object_bytes_max = 32u << 20;

inline constexpr std::array<DriverKey, 9> endpoint_keys{{
    {"conf", "Ceph's configuration file (default: where Ceph looks for it)"},
    {"mon_host", "addresses of monitors, in the place of the configuration file's"},
    {"id", "user, without 'client.' (default admin)"},
    {"keyring", "file with the user's key (default: where the configuration file says)"},
    {"data-pool", "pool for the data of an image that is made"},
    {"object-size", "object size of an image that is made: a power of two, 4K to 32M"},
    {"connect-timeout", "seconds to connect, and for each step of opening (default 10)"},
    {"reconnect-timeout", "seconds that a request waits for the cluster (default 120)"},
    {"in-use-timeout", "seconds to wait for others that have the image open (default 40)"},
}};

/// Errors: invalid_argument, too_large.
Result<Endpoint> parse_endpoint(const ImageUri& uri);

}  // namespace diskferry::rbd
