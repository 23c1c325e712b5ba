// What an operator asks for when a host is gone and one of its machines is to run on another one, from
// storage that survived.
#pragma once

#include "gateway/move/request.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

inline constexpr std::size_t definition_bytes_max = std::size_t{512} << 10;

struct EvacuationRequest {
  std::string machine{};  ///< its name
  /// The machine's XML, as a backup or its old host had it. Empty: as the last move that this gateway sent it
  /// away with has noted it. May hold passwords: never stored with a job.
  std::string definition{};
  std::string old_host{};  ///< the host that is gone, as its operators call it; empty: of that move's record
  std::string old_address{};       ///< where it would answer; empty: its name
  std::string old_libvirt{};       ///< its libvirt; empty: of the record, else qemu+tls://
  std::string destination{};       ///< libvirt's URI of this host; empty: the gateway's own
  std::vector<std::string> ask{};  ///< libvirt URIs of further hosts that might run the machine
  std::vector<MoveDisk> disks{};   ///< disks that are elsewhere than the definition says
  std::map<std::string, std::string> networks{};  ///< network or bridge there -> here
  std::string machine_type{};                     ///< in place of the definition's
  std::string cpu{};            ///< "host-model", "host-passthrough", "maximum" or the name of a model
  std::string i_have_fenced{};  ///< the old host's name, said by whoever made sure that it is off
  bool start = true;            ///< off: it is only defined
};

/// Errors: invalid_argument, naming the field; too_large (the definition).
Result<EvacuationRequest> parse_evacuation_request(std::string_view json);
std::string to_json(const EvacuationRequest& request);
/// What can be said about a request alone. Errors: as above.
Result<void> check(const EvacuationRequest& request);

}  // namespace diskferry
