// Why a move failed, where the hypervisor's answer does not tell: libvirt that misses a machine says "Domain
// not found", whoever ended it and wherever. Pure.
#pragma once

#include "diskferry/error.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace diskferry {

/// What was seen of both machines while the move ran. Texts are libvirt's ("stopped: destroyed").
struct MoveEnding {
  std::string machine{};
  std::string source_host{};
  std::string target_host{};
  bool has_ended = false;        ///< the guest runs nowhere any more
  bool was_given_up = false;     ///< by us, because the machine that waited at the target ended
  bool has_lost_source = false;  ///< libvirt there did not answer any more
  bool has_lost_target = false;
  std::string source_ended{};  ///< empty: no such event came
  std::string target_ended{};  ///< before it ever ran; libvirt that undoes a move ends it, too
};

/// The first cause, with the host and what to do; nullopt where `said`, the hypervisor's answer, is it.
std::optional<Error> cause_of_ending(const Error& said, const MoveEnding& seen);

/// The host of a libvirt URI, for people; the whole URI where it names none.
std::string host_of(std::string_view libvirt_uri);

}  // namespace diskferry
