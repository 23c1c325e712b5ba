// Every bound of the NBD server, by name. What a peer sends is measured against these and nothing else.
#pragma once

#include "diskferry/clock.hpp"

#include <cstddef>
#include <cstdint>

namespace diskferry::nbd_server {

struct Limits {
  /// Connections at once, whatever their state. QEMU's cap since CVE-2024-7409.
  std::size_t connections_max = 100;
  /// From accept to the end of negotiation, TLS included. QEMU's value.
  Duration handshake_time = std::chrono::seconds(10);
  /// Options one client may send before it enters an export. libnbd sends about 10, nbdkit allows 32.
  std::size_t options_max = 128;
  /// Data of one option; a list of contexts is the largest honest one.
  std::uint32_t option_bytes_max = 64u << 10;
  /// Data of an option that is skipped and refused politely; more ends the connection.
  std::uint32_t option_skip_bytes_max = 1u << 20;
  /// Metadata contexts a session may select.
  std::size_t contexts_max = 64;
  /// Payload of one request, announced in NBD_INFO_BLOCK_SIZE. QEMU's value.
  std::uint32_t payload_bytes_max = 32u << 20;
  /// Requests of one session that wait for a device.
  std::size_t requests_in_flight_max = 128;
  /// Payload memory those requests hold. A request that is larger than what is left waits for the others.
  /// 16 MiB keep any connection busy; more only queues.
  std::size_t request_bytes_in_flight_max = 16u << 20;
  /// Payload memory of all sessions together. Not the pool of the drivers: clients cannot starve those.
  std::size_t payload_memory_bytes = 96u << 20;
  /// What a session may have beyond that when the common memory is used up, so that clients which hold it all
  /// and read no replies cannot stop the others: it carries requests up to this size.
  std::size_t reserve_bytes = 512u << 10;
  /// Replies that wait for a client to read them; more stops the reading of requests.
  std::size_t output_bytes_max = 768u << 10;
  /// Descriptors in one block status chunk. The protocol allows 2^20; QEMU sends at most 2^17.
  std::size_t extents_per_reply_max = 16384;
  /// A client that lets its replies wait, or is in the middle of a large write, and moves less than
  /// stall_bytes for this long is disconnected: it holds memory that others wait for.
  Duration stall_time = std::chrono::seconds(60);
  /// 4 KiB a second; whoever really uses a disk is far above it.
  std::size_t stall_bytes = 256u << 10;
  /// What a shutdown waits for requests in flight and for replies to be read.
  Duration drain_time = std::chrono::seconds(10);
  /// What a connection that we end waits for the client to end it too, see Session::linger().
  Duration linger_time = std::chrono::seconds(1);
  /// Idle TCP connections are probed after this long, then every tenth of it, so that a dead peer is noticed.
  Duration keepalive_time = std::chrono::seconds(60);
};

}  // namespace diskferry::nbd_server
