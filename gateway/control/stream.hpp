// Connections as ByteStreams: sockets, TLS over them, and programs. For server.cpp and client.cpp.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/control/address.hpp"
#include "gateway/control/byte_stream.hpp"
#include "gateway/nbd/stream.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::control {

/// Over a connection that stands, plain or TLS.
std::unique_ptr<ByteStream> make_stream(std::unique_ptr<nbd_server::Stream> stream);
/// Takes the descriptors: equal ones are a socket, others a pair of pipes. Errors: unsupported.
Result<std::unique_ptr<ByteStream>> make_stream(const Executor& executor, int in, int out);

/// To a gateway's UNIX socket. Errors: not_found or gone (nobody is there), permission, cancelled.
Task<Result<std::unique_ptr<ByteStream>>> connect_unix(std::string path);
/// To a host, with TLS, both ends proved. `tls` was made for the address's name. Errors: not_found (the
/// name), gone, permission (a certificate), protocol, cancelled.
Task<Result<std::unique_ptr<ByteStream>>> connect_tls(DriverContext& context, GatewayAddress address,
                                                      std::shared_ptr<nbd_server::TlsContext> tls);

}  // namespace diskferry::control
