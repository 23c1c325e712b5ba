// QEMU's monitor protocol as lines: what one says, and what we write. Pure. Lines come from a process that
// may be broken or hostile, so depth and size have bounds and nothing of their form is taken for granted.
#pragma once

#include "diskferry/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

namespace diskferry {

inline constexpr std::size_t qmp_line_bytes_max = std::size_t{16} << 20;
inline constexpr std::size_t qmp_depth_max = 128;  ///< a chain of 50 backing images is two levels each

struct QmpVersion {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::uint32_t micro = 0;
};
struct QmpGreeting {
  QmpVersion version{};
};
struct QmpReply {
  std::optional<std::uint64_t> id{};  ///< absent where QEMU could not read the command
  Result<boost::json::value> result{};
};
struct QmpEvent {
  std::string name{};  ///< "BLOCK_JOB_READY"
  boost::json::object data{};
  std::uint64_t qemu_us = 0;  ///< when it happened, by QEMU's wall clock
  std::uint64_t at_ns = 0;    ///< when it came here, by the steady clock; not of the message
};
using QmpMessage = std::variant<QmpGreeting, QmpReply, QmpEvent>;

/// Errors: protocol (no JSON, not an object, none of the three), too_large (over a bound above).
Result<QmpMessage> parse_qmp(std::string_view line);

/// A command as a line, with its newline.
std::string qmp_line(std::uint64_t id, std::string_view command, const boost::json::object& arguments);

/// The kind that an error of QEMU stands for: by its class, and by its words where the class is
/// "GenericError".
ErrorKind kind_of_qmp(std::string_view error_class, std::string_view description) noexcept;

}  // namespace diskferry
