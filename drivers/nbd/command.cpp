// See the header.
#include "drivers/nbd/command.hpp"

#include <algorithm>
#include <cerrno>

#include <libnbd.h>

namespace diskferry::nbd {
namespace {
/// Chunks of one read that arrive in disorder; more is no honest answer.
constexpr std::size_t pieces_max = 16384;

int take_chunk(void* user_data, const void*, std::size_t count, std::uint64_t offset, unsigned status,
               int*) noexcept {
  auto& request = *static_cast<Request*>(user_data);
  if (status == LIBNBD_READ_ERROR) return 0;
  if (request.pieces.empty() && offset == request.received_end) {
    request.received_end += count;
    return 0;
  }
  try {
    if (request.pieces.empty())
      request.pieces.push_back({request.range.offset, request.received_end - request.range.offset});
    if (request.pieces.size() < pieces_max) {
      request.pieces.push_back({offset, count});
    } else {
      request.has_too_many_pieces = true;
    }
  } catch (...) {  // out of memory
    request.has_too_many_pieces = true;
  }
  return 0;
}

template <class Entry>
int take_extents(void* user_data, const char* context, Entry* entries, std::size_t count,
                 int* error) noexcept {
  auto& request = *static_cast<Request*>(user_data);
  try {
    request.status->begin(context);
    if constexpr (sizeof(Entry) == sizeof(std::uint32_t)) {
      for (std::size_t i = 0; i + 1 < count; i += 2) request.status->add(entries[i], entries[i + 1]);
    } else {
      for (std::size_t i = 0; i < count; ++i) request.status->add(entries[i].length, entries[i].flags);
    }
    return 0;
  } catch (...) {
    *error = ENOMEM;
    return -1;
  }
}
#ifdef LIBNBD_HAVE_NBD_AIO_BLOCK_STATUS_64
int take_extents_64(void* user_data, const char* context, std::uint64_t, nbd_extent* entries,
                    std::size_t count, int* error) noexcept {
  return take_extents(user_data, context, entries, count, error);
}
#else
int take_extents_32(void* user_data, const char* context, std::uint64_t, std::uint32_t* entries,
                    std::size_t count, int* error) noexcept {
  return take_extents(user_data, context, entries, count, error);
}
#endif
}  // namespace

bool has_arrived(Request& request) noexcept {
  if (request.has_too_many_pieces) return false;
  if (request.pieces.empty()) return request.received_end == request.range.end();
  std::ranges::sort(request.pieces, {}, &Range::offset);
  std::uint64_t end = request.range.offset;
  for (const Range& piece : request.pieces) {
    if (piece.empty()) continue;
    if (piece.offset != end) return false;
    end = piece.end();
  }
  return end == request.range.end();
}

std::int64_t send_command(nbd_handle& library, Request& request, OnComplete on_complete) {
  nbd_handle* const handle = &library;
  const nbd_completion_callback done{.callback = on_complete, .user_data = &request, .free = nullptr};
  const auto [offset, length] = request.range;
  switch (request.verb) {
    case Verb::read:
      request.received_end = offset;
      request.pieces.clear();
      request.has_too_many_pieces = false;
      return nbd_aio_pread_structured(handle, request.into, length, offset,
                                      {.callback = take_chunk, .user_data = &request, .free = nullptr}, done,
                                      request.flags);
    case Verb::write:
      return nbd_aio_pwrite(handle, request.from, length, offset, done, request.flags);
    case Verb::write_zeroes:
      return nbd_aio_zero(handle, length, offset, done, request.flags);
    case Verb::trim:
      return nbd_aio_trim(handle, length, offset, done, request.flags);
    case Verb::flush:
      return nbd_aio_flush(handle, done, request.flags);
    case Verb::cache:
      return nbd_aio_cache(handle, length, offset, done, request.flags);
    case Verb::block_status:
#ifdef LIBNBD_HAVE_NBD_AIO_BLOCK_STATUS_64
      return nbd_aio_block_status_64(handle, length, offset,
                                     {.callback = take_extents_64, .user_data = &request, .free = nullptr},
                                     done, request.flags);
#else
      return nbd_aio_block_status(handle, length, offset,
                                  {.callback = take_extents_32, .user_data = &request, .free = nullptr}, done,
                                  request.flags);
#endif
  }
  return -1;
}

}  // namespace diskferry::nbd
