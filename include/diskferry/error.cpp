// Error texts and the errno map. Must never put anything but what it was given into a message.
#include "diskferry/error.hpp"

#include "diskferry/error_kinds.hpp"

#include <cerrno>
#include <fmt/format.h>

namespace diskferry {

std::string_view to_string(ErrorKind kind) noexcept {
  return row_of(kind).name;
}

Error::Error(ErrorKind kind, std::string operation, std::string object)
    : kind_(kind), detail_(std::make_unique<Detail>()) {
  detail_->operation = std::move(operation);
  detail_->object = std::move(object);
}
Error::Error(const Error& other) : kind_(other.kind_), detail_(std::make_unique<Detail>(*other.detail_)) {}
Error& Error::operator=(const Error& other) {
  if (this != &other) *this = Error(other);
  return *this;
}
Error&& Error::cause(std::error_code code) && {
  detail_->cause = code;
  return std::move(*this);
}
Error&& Error::object(std::string name) && {
  detail_->object = std::move(name);
  return std::move(*this);
}
Error&& Error::at(std::uint64_t offset, std::uint64_t length) && {
  detail_->position = Position{offset, length};
  return std::move(*this);
}
Error&& Error::why(std::string text) && {
  detail_->why = std::move(text);
  return std::move(*this);
}
Error&& Error::remedy(std::string text) && {
  detail_->remedy = std::move(text);
  return std::move(*this);
}
Error&& Error::in(std::string step) && {
  detail_->steps.push_back(std::move(step));
  return std::move(*this);
}
Error Error::with_step(std::string step) const {
  return Error(*this).in(std::move(step));
}

std::string Error::message() const {
  std::string text;
  for (auto step = detail_->steps.rbegin(); step != detail_->steps.rend(); ++step) text += *step + ": ";
  if (!detail_->object.empty()) text += detail_->object + ": ";
  if (!detail_->operation.empty()) text += detail_->operation + ": ";
  if (!detail_->why.empty()) text += detail_->why;
  if (detail_->cause) {
    text += detail_->why.empty() ? detail_->cause.message() : fmt::format(" ({})", detail_->cause.message());
  } else if (detail_->why.empty()) {
    text += row_of(kind_).text;
  }
  if (detail_->position) {
    text += fmt::format(" at offset {}", detail_->position->offset);
    if (detail_->position->length != 0) text += fmt::format(", length {}", detail_->position->length);
  }
  if (!detail_->remedy.empty()) text += "; " + detail_->remedy;
  return text;
}

ErrorKind kind_of_errno(int error_number) noexcept {
  switch (error_number) {
    case ECANCELED:
      return ErrorKind::cancelled;
    case ETIMEDOUT:
      return ErrorKind::timed_out;
    case EINVAL:
      return ErrorKind::invalid_argument;
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
      return ErrorKind::not_found;
    case EEXIST:
      return ErrorKind::already_exists;
    case EACCES:
    case EPERM:
      return ErrorKind::permission;
    case EBUSY:
    case ETXTBSY:
      return ErrorKind::in_use;
    case EROFS:
    case EBADF:
      return ErrorKind::read_only;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorKind::no_space;
    case EOPNOTSUPP:
    case ENOSYS:
      return ErrorKind::unsupported;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ESHUTDOWN:
    case ESTALE:
      return ErrorKind::gone;
    case EOVERFLOW:
      return ErrorKind::too_large;
    default:
      return ErrorKind::io;
  }
}

Error errno_error(int error_number, std::string operation, std::string object) {
  return Error(kind_of_errno(error_number), std::move(operation), std::move(object))
      .cause(errno_code(error_number));
}

}  // namespace diskferry
