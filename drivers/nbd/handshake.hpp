// Handshake: what libnbd is told before a connection, and what its errors mean after one. Used by Connection
// alone. libnbd's errors are a number and a sentence per thread, good until the thread's next call of libnbd.
#pragma once

#include "drivers/nbd/endpoint.hpp"
#include "drivers/nbd/server_info.hpp"

#include <memory>
#include <string>

struct nbd_handle;

namespace diskferry::nbd {

struct CloseHandle {
  void operator()(nbd_handle* handle) const noexcept;
};
using Handle = std::unique_ptr<nbd_handle, CloseHandle>;

/// The last failure of libnbd in this thread.
struct LibraryError {
  int number = 0;  ///< errno, 0 where libnbd has none
  std::string text;
};
LibraryError last_error();

/// The TLS files are there, and this libnbd can verify the server as the endpoint asks. Asked again when a
/// connection stands: libnbd verifies nothing where ca-cert.pem was away for a moment.
Result<void> check_tls(const Endpoint& endpoint);

/// A handle with every setting made, not connected. `server_text` receives the sentence a server adds to a
/// refusal; it must outlive the handle. Looks at the TLS files. Errors: invalid_argument, not_found,
/// permission (TLS files), unsupported (what this libnbd cannot do safely).
Result<Handle> make_handle(const Endpoint& endpoint, std::string& server_text);

/// Starts to connect. Resolves the host's name, and so may block for as long as the resolver takes.
Result<void> start_connecting(nbd_handle& handle, const Endpoint& endpoint);

/// What a failure while connecting or negotiating is, for the operator.
Error explain(const Endpoint& endpoint, const LibraryError& error, const std::string& server_text);

/// What was negotiated. Precondition: the handle is ready. Errors: protocol.
Result<ServerInfo> server_info(nbd_handle& handle);

}  // namespace diskferry::nbd
