#include "drivers/iscsi/status.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>

namespace diskferry::iscsi {
namespace {

enum : int {
  good = 0x00,
  check_condition = 0x02,
  condition_met = 0x04,
  busy = 0x08,
  reservation_conflict = 0x18,
  task_set_full = 0x28,
  aca_active = 0x30,
  task_aborted = 0x40,
};
enum : unsigned {
  no_sense = 0x0,
  recovered = 0x1,
  not_ready = 0x2,
  medium_error = 0x3,
  hardware_error = 0x4,
  illegal_request = 0x5,
  unit_attention = 0x6,
  data_protect = 0x7,
  aborted_command = 0xb,
};

constexpr std::uint16_t becoming_ready = 0x0401;
constexpr std::uint16_t state_transition = 0x040a;
constexpr std::uint16_t lun_unsupported = 0x2500;

/// After these the LUN may be another one, of another size, or have lost its power meanwhile.
bool needs_new_look(std::uint16_t code) noexcept {
  constexpr std::array<std::uint16_t, 2> codes{0x2a09, 0x3f03};  // capacity, inquiry data have changed
  const unsigned group = code >> 8;
  return group == 0x28 || group == 0x29 || std::ranges::find(codes, code) != codes.end();
}

struct Row {
  unsigned key;
  std::uint16_t code;  // 0xffff: any
  ErrorKind kind;
  std::string_view text;
  std::string_view remedy = {};
};
constexpr std::string_view full_remedy = "free space in the storage of the target";
constexpr std::string_view protected_remedy = "make it writable at the target";
constexpr std::string_view lun_remedy =
    "iscsi-ls -s lists what it has; check also which initiators may see it";
constexpr std::string_view form_text = "the target does not take this command in this form";
constexpr std::array rows{
    Row{data_protect, 0x2707, ErrorKind::no_space, "the storage of the target is full", full_remedy},
    Row{data_protect, 0xffff, ErrorKind::read_only, "the LUN is write protected", protected_remedy},
    Row{medium_error, 0xffff, ErrorKind::io,
        "the storage of the target fails: its medium is bad, or it has no free space left, which some "
        "targets do "
        "not tell apart",
        "look for free space and errors there"},
    Row{hardware_error, 0xffff, ErrorKind::io, "the target has a hardware error", "look into its log"},
    Row{not_ready, 0xffff, ErrorKind::gone, "the LUN is not ready", "bring it online at the target"},
    Row{illegal_request, lun_unsupported, ErrorKind::not_found, "the target has no LUN of this number",
        lun_remedy},
    Row{illegal_request, 0x2100, ErrorKind::out_of_range, "the LUN ends before its size when it was opened",
        "nobody may change the size of the disk while it is in use"},
    Row{illegal_request, 0x2000, ErrorKind::unsupported, "the target does not know this command"},
    // Of a field of the command; of its parameters: their length, a field, one that is not known, its value.
    Row{illegal_request, 0x2400, ErrorKind::unsupported, form_text},
    Row{illegal_request, 0x1a00, ErrorKind::unsupported, form_text},
    Row{illegal_request, 0x2600, ErrorKind::unsupported, form_text},
    Row{illegal_request, 0x2601, ErrorKind::unsupported, form_text},
    Row{illegal_request, 0x2602, ErrorKind::unsupported, form_text},
};

constexpr std::string_view sense_key_name(unsigned key) noexcept {
  constexpr std::array<std::string_view, 12> names{"NO SENSE",       "RECOVERED ERROR", "NOT READY",
                                                   "MEDIUM ERROR",   "HARDWARE ERROR",  "ILLEGAL REQUEST",
                                                   "UNIT ATTENTION", "DATA PROTECT",    "BLANK CHECK",
                                                   "VENDOR",         "COPY ABORTED",    "ABORTED COMMAND"};
  return key < names.size() ? names[key] : "SENSE KEY";
}

std::string_view status_name(int status) noexcept {
  switch (status) {
    case busy:
      return "BUSY";
    case reservation_conflict:
      return "RESERVATION CONFLICT";
    case task_set_full:
      return "TASK SET FULL";
    case aca_active:
      return "ACA ACTIVE";
    case task_aborted:
      return "TASK ABORTED";
    default:
      return "an unknown status";
  }
}

Verdict judge_sense(const Sense& sense) noexcept {
  if (sense.is_deferred) return Verdict::refused;
  switch (sense.key) {
    case no_sense:
    case recovered:
      return Verdict::done;
    case unit_attention:
      return needs_new_look(sense.code) ? Verdict::new_look : Verdict::again;
    case not_ready:
      return sense.code == becoming_ready || sense.code == state_transition ? Verdict::later
                                                                            : Verdict::refused;
    case illegal_request:
      return sense.code == lun_unsupported ? Verdict::new_look : Verdict::refused;
    case aborted_command:
      return Verdict::later;
    default:
      return Verdict::refused;
  }
}

}  // namespace

Verdict judge(int status, const Sense& sense) noexcept {
  switch (status) {
    case good:
    case condition_met:
      return Verdict::done;
    case check_condition:
      return judge_sense(sense);
    case busy:
    case task_set_full:
    case aca_active:
    case task_aborted:
      return Verdict::later;
    default:
      return Verdict::refused;
  }
}

bool is_preemption(const Sense& sense) noexcept {
  return sense.key == unit_attention && (sense.code == 0x2a03 || sense.code == 0x2a05);
}

Error preempted(std::string verb, const std::string& name) {
  return fail(ErrorKind::in_use, std::move(verb), name)
      .why("another initiator has taken the LUN over")
      .remedy("make sure that only one writes there, then start again");
}

bool is_unknown_to_target(const Answer& answer) noexcept {
  return answer.status == check_condition && answer.sense.key == illegal_request;
}

bool is_reserved(int status) noexcept {
  return status == reservation_conflict;
}

bool is_no_such_lun(const Sense& sense) noexcept {
  return sense.key == illegal_request && sense.code == lun_unsupported;
}

std::string describe(int status, const Sense& sense) {
  if (status != check_condition) return std::string(status_name(status));
  return fmt::format("{} {:02X}/{:02X}", sense_key_name(sense.key), sense.code >> 8, sense.code & 0xff);
}

Error refusal(const Answer& answer, std::string verb, const std::string& name) {
  const std::string said = describe(answer.status, answer.sense);
  if (answer.status == reservation_conflict)
    return fail(ErrorKind::in_use, std::move(verb), name)
        .why(fmt::format("another initiator has reserved the LUN ({})", said))
        .remedy("end what uses it there; if that is gone for certain, add steal-reservation=yes");
  if (answer.status == check_condition && answer.sense.is_deferred)
    return fail(ErrorKind::io, std::move(verb), name)
        .why(fmt::format("an earlier write failed after it had been acknowledged ({})", said))
        .remedy("look into the log of the target");
  if (answer.status == check_condition) {
    for (const Row& row : rows) {
      if (row.key != answer.sense.key || (row.code != 0xffff && row.code != answer.sense.code)) continue;
      Error error = fail(row.kind, std::move(verb), name).why(fmt::format("{} ({})", row.text, said));
      return row.remedy.empty() ? error : std::move(error).remedy(std::string(row.remedy));
    }
  }
  return fail(ErrorKind::io, std::move(verb), name).why(fmt::format("the target answers {}", said));
}

Error no_such_lun(const std::string& name) {
  return fail(ErrorKind::not_found, "look at", name)
      .why("the target has no LUN of this number")
      .remedy(std::string(lun_remedy));
}

Error write_protected(std::string verb, const std::string& name) {
  return fail(ErrorKind::read_only, std::move(verb), name)
      .why("the LUN is write protected")
      .remedy(std::string(protected_remedy));
}

namespace {
/// The status that libiscsi gives in brackets at the end: "...(513)".
unsigned login_status(std::string_view said) noexcept {
  const auto open = said.rfind('(');
  if (open == std::string_view::npos) return 0;
  unsigned status = 0;
  (void)std::from_chars(said.data() + open + 1, said.data() + said.size(), status);
  return status;
}

struct LoginRow {
  unsigned status;  // RFC 7143, 11.13.5
  ErrorKind kind;
  std::string_view text;
  std::string_view remedy = {};
};
constexpr std::array login_rows{
    LoginRow{0x0201, ErrorKind::permission, "the target refuses the user or the password",
             "check the user in the URI, and the password's file"},
    LoginRow{0x0202, ErrorKind::permission, "the target does not let this initiator in",
             "allow its name there, or give the one that is allowed by initiator=NAME"},
    LoginRow{0x0203, ErrorKind::not_found, "there is no such target",
             "iscsi-ls lists those of the host; it may also be hidden from this initiator"},
    LoginRow{0x0204, ErrorKind::not_found, "this target was removed"},
    LoginRow{0x0206, ErrorKind::in_use, "the target takes no more sessions",
             "end others, or give connections=1"},
    LoginRow{0x0301, ErrorKind::gone, "the target is not in service"},
    LoginRow{0x0302, ErrorKind::gone, "the target has no resources left"},
};
}  // namespace

Error login_error(std::string_view said, const std::string& name) {
  const auto says = [said](std::string_view what) { return said.find(what) != std::string_view::npos; };
  if (says("CHAP_R") || says("CHAP_N") || says("CHAP targetname"))
    return fail(ErrorKind::permission, "log in", name)
        .why("the target does not prove that it is the one meant")
        .remedy("check target-user, and the password that belongs to it");
  const unsigned status = says("Failed to log in") ? login_status(said) : 0;
  for (const LoginRow& row : login_rows) {
    if (row.status != status) continue;
    Error error = fail(row.kind, "log in", name).why(std::string(row.text));
    return row.remedy.empty() ? error : std::move(error).remedy(std::string(row.remedy));
  }
  if (status >> 8 == 2)
    return fail(ErrorKind::protocol, "log in", name)
        .why(fmt::format("the target finds fault with the login ({:#06x})", status));
  return fail(ErrorKind::gone, "log in", name)
      .why(said.empty() ? "the target closed the connection" : printable(said))
      .remedy("check that the target is up, and its address");
}

}  // namespace diskferry::iscsi
