// What a target's answers mean to the caller. Pure. The numbers are those of SPC-5 and SBC-4.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace diskferry::iscsi {

struct Sense {
  std::uint8_t key = 0;
  std::uint16_t code = 0;    ///< ASC and ASCQ
  bool is_deferred = false;  ///< it is about an earlier command, which had been acknowledged
};

struct Answer {
  enum class How : std::uint8_t {
    given,
    lost,  ///< the session ended first: it may or may not have been done
    cancelled
  };
  How how = How::lost;
  int status = 0;
  Sense sense{};
  std::uint32_t bytes = 0;     ///< read into memory
  std::uint64_t verifier = 0;  ///< of the session that it came by
};

enum class Verdict : std::uint8_t {
  done,
  again,     ///< at once: nothing was done, and the reason is gone
  later,     ///< nothing was done, as the target is busy
  new_look,  ///< the LUN was reset or changed: the session has to look at it again, then it is sent again
  refused
};
Verdict judge(int status, const Sense& sense) noexcept;
bool is_no_such_lun(const Sense& sense) noexcept;
/// Another initiator took our registration or reservation away.
bool is_preemption(const Sense& sense) noexcept;
Error preempted(std::string verb, const std::string& name);
/// The target does not know the command, or not in this form.
bool is_unknown_to_target(const Answer& answer) noexcept;
/// Of a LUN that another initiator has reserved: the answer to much, but not to all.
bool is_reserved(int status) noexcept;

/// What the answer says, of which the verdict is `refused` or `later`, or it had no end.
Error refusal(const Answer& answer, std::string verb, const std::string& name);
/// "UNIT ATTENTION 29/00", "BUSY".
std::string describe(int status, const Sense& sense);

Error no_such_lun(const std::string& name);
/// Of a LUN that says so before anybody writes to it.
Error write_protected(std::string verb, const std::string& name);

/// Why a login failed, by what libiscsi says of it.
Error login_error(std::string_view said, const std::string& name);

}  // namespace diskferry::iscsi
