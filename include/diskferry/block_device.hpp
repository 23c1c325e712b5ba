// BlockDevice: bytes behind an asynchronous interface. Everything that is read, written, copied, mirrored or
// served is one: a file, an NBD export, a qcow2 image over another device, a fault filter over anything.
//
// A driver implements this interface and holds only its own work. Callers never call a driver directly:
// open_image() and the registry put a CheckedDevice in front, which asserts range, alignment and capability
// of every call and emulates what a driver cannot do (zeroing by writing zeros), so that a driver sees valid
// calls only.
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/task.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace diskferry {

/// How well a device zeroes a range without being sent the zeros.
enum class ZeroSupport : std::uint8_t {
  none,      ///< not at all; the checking layer writes zeros
  slow,      ///< about as slow as writing
  fast,      ///< much faster than writing; storage stays allocated
  unmapping  ///< much faster, and gives the storage back where that is allowed
};

/// What a device can do. Fetched once at open, then fixed.
struct DeviceInfo {
  std::string name;                             ///< for messages: the URI without secrets
  std::uint32_t block_bytes = 1;                ///< smallest unit of a request; a power of two, 1 .. 65536
  std::uint32_t preferred_bytes = 4096;         ///< requests aligned to this avoid read-modify-write
  std::uint32_t request_bytes_max = 32u << 20;  ///< largest read or write; zeroing and discard may be larger
  ZeroSupport zero = ZeroSupport::none;
  bool is_read_only = true;
  bool can_discard = false;
  bool can_report_extents = false;  ///< extents() tells more than "all data"
  bool can_fua = false;             ///< write with fua costs less than write and flush
  bool can_grow = false;            ///< writes past the end extend the device (a format's storage)
  bool can_multi_connection =
      false;  ///< a flush on one connection covers writes acknowledged on all (see NBD)
  bool is_rotational = false;
  /// A restart of its server may take what was acknowledged and not flushed; the device then fails with gone,
  /// at the next flush at the latest, and has to be opened again.
  bool may_lose_unflushed = false;
  bool starts_zeroed = false;       ///< proved when opened: every byte read as zero, nothing was written yet
  unsigned parallel_requests = 16;  ///< how many requests at once it takes to keep the device busy
};

struct WriteFlags {
  bool fua = false;  ///< durable before the task completes
  /// Nobody waits for it: what may block, however seldom, is not done on a reactor, where others are served.
  bool in_background = false;
};
struct ZeroFlags {
  bool may_unmap = true;  ///< storage may be given back; false: it must stay allocated (NBD NO_HOLE)
  bool fast_only =
      false;  ///< fail with `unsupported` before changing anything rather than be as slow as writing
  bool fua = false;
};

/// Thread: every verb may be called from any executor thread, many at once, also with overlapping ranges:
/// then the result is that of some order of the calls, block by block. Ranges:  offset is a multiple of
/// info().block_bytes; so is the length, or the range ends at size_bytes(). Errors:  kinds any verb may
/// return: cancelled, timed_out, io (the device is still usable), gone (open it again),
///          permission, internal; further ones are named at each verb.
/// Cancel:  asks the storage to stop, then still waits until it has let go of the caller's memory.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  virtual const DeviceInfo& info() const noexcept = 0;
  /// Current size in bytes. Constant, but where info().can_grow.
  virtual std::uint64_t size_bytes() const noexcept = 0;

  /// Fills `into` from `offset`. On error the content of `into` is undefined. Lifetime: `into` until the task
  /// ends.
  virtual Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) = 0;

  /// Writes all of `from` at `offset`. On error any part of the range may have been written.
  /// Errors: read_only, no_space. Lifetime: `from` until the task ends.
  virtual Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from,
                                   WriteFlags flags) = 0;

  /// Makes the range read as zeros. Any length. Errors: read_only, no_space, unsupported (only with
  /// fast_only, and then nothing was changed).
  virtual Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) = 0;

  /// Tells the storage that the content is not needed; what the range reads afterwards is undefined. A hint:
  /// the device may do nothing. Any length. Errors: read_only.
  virtual Task<Result<void>> discard(Range range) = 0;

  /// Everything acknowledged before this call is durable when it completes. Errors: no_space.
  virtual Task<Result<void>> flush() = 0;

  /// What is known of the start of `range`: at least one extent, contiguous from range.offset, at most
  /// `extents_max`, all inside the range; fewer than asked for is normal, the caller goes on where the list
  /// ends. Costs little even where the virtual size is huge.
  virtual Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) = 0;

  /// Lets go of everything: nothing may be called afterwards. Does not flush. Called once, after all other
  /// calls have ended, before the destructor.
  virtual Task<Result<void>> close() = 0;

  // Optional fast paths; the defaults say "not now".

  /// Reads without waiting: served from memory at once, or not at all (nullopt: use read()). Never suspends,
  /// and never blocks the thread for longer than copying the bytes takes.
  virtual std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into);
  /// Writes without waiting, under the same rule; never with fua.
  virtual std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from);
  /// Reads ahead into whatever cache there is (NBD CACHE). A hint.
  virtual Task<Result<void>> prefetch(Range range);
  /// Begins to make durable what was written in `range`, without promising anything. A hint of the copy
  /// engine, so that the flush at the end finds little left to do.
  virtual Task<Result<void>> start_writeback(Range range);
  /// Copies from another device inside the storage (reflink, copy_file_range), without the bytes passing
  /// through here. Returns the bytes copied from the start, 0 where this pair cannot.
  virtual Task<Result<std::uint64_t>> copy_from(BlockDevice& source, std::uint64_t source_offset,
                                                std::uint64_t offset, std::uint64_t length);
  /// Requests that were sent again because the connection to the storage was lost or they failed for a
  /// passing reason; with those of the devices below.
  virtual std::uint64_t repeated_requests() const noexcept { return 0; }
  /// Whoever uses the device is ending: calls from now on, which would wait for lost storage to come back,
  /// wait for a second at most and then fail with gone.
  virtual void stop_waiting() noexcept {}
  /// The device below a wrapper that changes nothing about content and offsets, else this device. For
  /// copy_from.
  virtual BlockDevice& unwrapped() noexcept { return *this; }
};

}  // namespace diskferry
