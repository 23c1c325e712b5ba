// See the header.
#include "drivers/nbd/outcome.hpp"

#include <cerrno>
#include <fmt/format.h>

#include <libnbd.h>

namespace diskferry::nbd {
namespace {

/// The errors that may come over the wire (NBD protocol, "Error values"), as libnbd gives them: as errno.
ErrorKind kind_of(const Request& request, int error_number) {
  switch (error_number) {
    case EPERM:
      return ErrorKind::permission;
    case ENOSPC:
      return ErrorKind::no_space;
    case ENOTSUP:
      return ErrorKind::unsupported;
    case EOVERFLOW:
    case EINVAL:
      // Our ranges are valid: what the server does not take is a limit that it did not announce.
      return request.verb == Verb::write_zeroes && (request.flags & LIBNBD_CMD_FLAG_FAST_ZERO) != 0
                 ? ErrorKind::unsupported
                 : ErrorKind::io;
    default:
      return ErrorKind::io;
  }
}

}  // namespace

Error request_error(const Request& request, Outcome outcome, const std::string& name,
                    std::uint32_t block_bytes) {
  const auto about = [&](ErrorKind kind) {
    Error error = fail(kind, std::string(to_string(request.verb)), name);
    return request.range.empty() ? error : std::move(error).at(request.range.offset, request.range.length);
  };
  switch (outcome.how) {
    case Outcome::How::broken:
      return about(ErrorKind::protocol)
          .why(request.verb == Verb::read ? "the server did not send every byte exactly once"
                                          : "the server's answer makes no sense");
    case Outcome::How::not_sent:
      return about(outcome.error_number == ENOMEM ? ErrorKind::too_large : ErrorKind::internal)
          .why("libnbd refuses the request")
          .cause(errno_code(outcome.error_number));
    default:
      if (outcome.error_number == EINVAL && request.range.length % block_bytes != 0)
        return about(ErrorKind::io)
            .why(fmt::format(
                "the export's size is no multiple of its block size {}, and the server refuses its last part",
                block_bytes))
            .cause(errno_code(outcome.error_number))
            .remedy("give the export at the server a size of whole blocks");
      return about(kind_of(request, outcome.error_number))
          .why("the server refuses")
          .cause(errno_code(outcome.error_number));
  }
}

Error garbled_error(const Request& request, const std::string& name, const Connection& connection) {
  return fail(ErrorKind::protocol, std::string(to_string(request.verb)), name)
      .why(fmt::format("the server's answers make no sense ({})", connection.loss_reason()))
      .at(request.range.offset, request.range.length);
}

}  // namespace diskferry::nbd
