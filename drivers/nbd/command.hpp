// One request as libnbd takes it, and what of its answer comes before its end. Used by Connection alone;
// libnbd calls back with its lock held, so nothing is resumed here.
#pragma once

#include "drivers/nbd/request.hpp"

#include <cstdint>

struct nbd_handle;

namespace diskferry::nbd {

/// libnbd calls it with the request as `user_data`; *error is an errno, 0 where the server did it.
using OnComplete = int (*)(void* user_data, int* error) noexcept;

/// Queues the command and sends what the socket takes; may complete it, and others, before it returns. -1
/// where libnbd refused it, with the reason in last_error(); nothing is called then. The request and its
/// memory must outlive it.
std::int64_t send_command(nbd_handle& library, Request& request, OnComplete on_complete);

/// True where every byte of a read that the server calls done has come exactly once, in whatever order.
bool has_arrived(Request& request) noexcept;

}  // namespace diskferry::nbd
