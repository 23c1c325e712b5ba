// The one error type. What can fail for reasons outside the program (a peer, a file, an operator, a full
// disk) returns Result<T>; a coroutine returns Task<Result<T>>. Code branches on the kind and on nothing
// else; the rest is for the person who reads the message. How a kind becomes an NBD error, an exit code or a
// retry is one table in error_kinds.hpp.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace diskferry {

enum class ErrorKind : std::uint8_t {
  cancelled,         ///< asked to stop; nothing is wrong
  timed_out,         ///< a deadline passed
  invalid_argument,  ///< what the operator or the peer asked for makes no sense
  not_found,         ///< the image, export, snapshot or bitmap is not there
  already_exists,    ///< would have to overwrite something
  permission,        ///< the system or the server does not let us
  in_use,            ///< locked by somebody else
  read_only,         ///< a write to something opened or offered for reading
  out_of_range,      ///< beyond the end of the device
  no_space,          ///< the storage or a quota is full
  unsupported,       ///< a valid request that this device, server or format cannot serve
  corrupt,           ///< metadata or data that contradicts itself
  too_large,         ///< over one of our stated limits
  mismatch,          ///< compared content, sizes or identities differ
  protocol,          ///< the peer broke the protocol
  io,                ///< the storage failed a request; the device is still usable
  gone,              ///< the device or connection is lost; it must be opened again
  internal,          ///< a defect of ours, caught before it did harm
};
inline constexpr std::size_t error_kind_count = static_cast<std::size_t>(ErrorKind::internal) + 1;

/// The stable name of a kind, as used in logs and JSON ("no_space").
std::string_view to_string(ErrorKind kind) noexcept;

/// An error and its way up. Cheap to move; copying copies the texts.
///
///   return fail(ErrorKind::no_space, "write", uri.to_string()).cause(errno_code(errno)).at(offset, length);
///   ... .in("open base image")          steps are added by callers, outermost last
class Error {
 public:
  /// `operation` is a verb ("read", "open"); `object` what it was done to, never with a secret in it.
  Error(ErrorKind kind, std::string operation, std::string object = {});
  Error(const Error& other);
  Error& operator=(const Error& other);
  Error(Error&&) noexcept = default;
  Error& operator=(Error&&) noexcept = default;
  ~Error() = default;

  ErrorKind kind() const noexcept { return kind_; }
  std::error_code cause() const noexcept { return detail_->cause; }
  const std::string& operation() const noexcept { return detail_->operation; }
  const std::string& object() const noexcept { return detail_->object; }
  const std::string& why() const noexcept { return detail_->why; }
  const std::string& remedy() const noexcept { return detail_->remedy; }
  const std::vector<std::string>& steps() const noexcept { return detail_->steps; }
  struct Position {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  const std::optional<Position>& position() const noexcept { return detail_->position; }

  // Builders; each returns the error so that they chain on a temporary.
  Error&& cause(std::error_code code) &&;
  Error&& object(std::string name) &&;
  Error&& at(std::uint64_t offset, std::uint64_t length) &&;
  /// A sentence on what is wrong, where kind and cause do not say it.
  Error&& why(std::string text) &&;
  /// What the operator can do about it ("free space, then run again with --resume").
  Error&& remedy(std::string text) &&;
  /// A step on the way up ("open backing image base.qcow2").
  Error&& in(std::string step) &&;
  Error with_step(std::string step) const;

  /// One line without secrets: steps, object, operation, why, cause, position, remedy.
  std::string message() const;

 private:
  struct Detail {
    std::error_code cause;
    std::string operation;
    std::string object;
    std::string why;
    std::string remedy;
    std::optional<Position> position;
    std::vector<std::string> steps;
  };
  ErrorKind kind_;
  std::unique_ptr<Detail> detail_;
};

/// A value or an Error. A class of its own, because [[nodiscard]] on an alias is ignored.
template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using value_type = T;
  using std::expected<T, Error>::expected;
};

/// `std::unexpected` around an Error, with the builders of Error.
inline Error fail(ErrorKind kind, std::string operation, std::string object = {}) {
  return Error(kind, std::move(operation), std::move(object));
}
inline std::unexpected<Error> unexpected(Error error) {
  return std::unexpected<Error>(std::move(error));
}

/// The kind that an errno means for an operation on local storage or a socket (ENOSPC -> no_space, ...).
ErrorKind kind_of_errno(int error_number) noexcept;
inline std::error_code errno_code(int error_number) {
  return {error_number, std::system_category()};
}
/// An Error from an errno: kind by kind_of_errno, cause set.
Error errno_error(int error_number, std::string operation, std::string object = {});

}  // namespace diskferry

// Early return. CHECK for Result<void>, TRY to take the value out; the CO_ forms are for coroutines.
//   DISKFERRY_CO_TRY(auto header, co_await read_header(file));
//   DISKFERRY_CHECK(validate(header));
#define DISKFERRY_DETAIL_CAT2(a, b) a##b
#define DISKFERRY_DETAIL_CAT(a, b) DISKFERRY_DETAIL_CAT2(a, b)
#define DISKFERRY_DETAIL_TRY(return_, result, declaration, ...) \
  auto result = __VA_ARGS__;                                    \
  if (!result) [[unlikely]]                                     \
    return_ ::std::unexpected(::std::move(result).error());     \
  declaration = *::std::move(result)
#define DISKFERRY_DETAIL_CHECK(return_, result, ...)   \
  if (auto result = __VA_ARGS__; !result) [[unlikely]] \
  return_ ::std::unexpected(::std::move(result).error())

#define DISKFERRY_TRY(declaration, ...) \
  DISKFERRY_DETAIL_TRY(return, DISKFERRY_DETAIL_CAT(try_result_, __LINE__), declaration, __VA_ARGS__)
#define DISKFERRY_CO_TRY(declaration, ...) \
  DISKFERRY_DETAIL_TRY(co_return, DISKFERRY_DETAIL_CAT(try_result_, __LINE__), declaration, __VA_ARGS__)
#define DISKFERRY_CHECK(...) \
  DISKFERRY_DETAIL_CHECK(return, DISKFERRY_DETAIL_CAT(check_result_, __LINE__), __VA_ARGS__)
#define DISKFERRY_CO_CHECK(...) \
  DISKFERRY_DETAIL_CHECK(co_return, DISKFERRY_DETAIL_CAT(check_result_, __LINE__), __VA_ARGS__)
