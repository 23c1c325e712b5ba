// What an operator asks for when a machine is to move; stored with the job, so it holds names of files with
// secrets and never a secret.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

struct MoveDisk {
  std::string target{};  ///< the machine's disk: "vda"
  std::string uri{};     ///< where it goes: a path on the target's host, or a URI that host can open
  std::string format{};  ///< "raw" or "qcow2"; empty: by the name's ending
  /// UUID of the secret of the other host's libvirt with the storage's key, where the URI names a user.
  std::string secret{};
};

enum class TimeoutAction : std::uint8_t { abort, suspend, post_copy };

struct MoveRequest {
  std::string domain{};
  std::string source{};       ///< libvirt URI of this host; empty: the configuration's
  std::string destination{};  ///< libvirt URI of the other host
  std::string gateway{};  ///< the other host's gateway: "https://host:port", "ssh://[user@]host", "unix:PATH"
  std::vector<MoveDisk> disks{};
  bool cold = false;                              ///< the machine is shut off, and its disks are copied
  bool overwrite = false;                         ///< a target that is there already may be overwritten
  std::map<std::string, std::string> networks{};  ///< network or bridge here -> there
  std::string new_name{};
  std::string machine_type{};  ///< there, in place of the machine's own; of one that is shut off only
  std::string cpu{};  ///< the same: "host-model", "host-passthrough", "maximum" or the name of a model

  std::uint64_t bytes_per_s = 0;  ///< for disks and memory together; 0: no bound
  std::uint64_t max_pause_ms = 300;
  std::uint64_t timeout_s = 0;  ///< 0: none
  TimeoutAction timeout_action = TimeoutAction::abort;
  bool auto_converge = false;
  bool post_copy = false;
  unsigned parallel = 0;  ///< connections of the memory stream; 0: one
  std::string compression{};
  bool memory_tls = false;
  std::string memory_uri{};  ///< where the target's QEMU takes the memory; empty: libvirt's choice
  unsigned connections = 0;  ///< to the target, a disk; 0: by the configuration
  bool keep_partial =
      false;  ///< after a failure the target stays, and the next attempt sends only differences
  bool keep_source = false;     ///< stay `retained` until told to release
  bool verify = true;           ///< cold: what was copied is read back
  bool verify_running = false;  ///< the same of a machine that runs, before its memory goes over
};

/// Errors: invalid_argument, naming the field.
Result<MoveRequest> parse_move_request(std::string_view json);
std::string to_json(const MoveRequest& request);
/// What can be said about a request alone. Errors: invalid_argument.
Result<void> check(const MoveRequest& request);

}  // namespace diskferry
