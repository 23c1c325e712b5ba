// Compressing and inflating one qcow2 cluster. Pure: no I/O, no state but a working area per thread. Called
// by the reader for every compressed cluster (its input is hostile) and by the writer for clusters it packs.
#pragma once

#include "diskferry/error.hpp"
#include "drivers/image/qcow2/header.hpp"

#include <cstddef>
#include <optional>
#include <span>

namespace diskferry::qcow2 {

/// Fills all of `into` from the compressed data `from`. The stored length of a cluster is rounded up to
/// sectors, so `from` may have anything after the end of the data; whoever wrote it may also have left the
/// end mark out. Only that `into` is filled counts (the specification: "decompression stops when it has
/// produced a cluster of data"). Errors: corrupt, without object or position: the caller knows them. Thread:
/// any; takes as long as inflating does, with a bounded working area (zstd: a window of 8 MiB).
Result<void> inflate_cluster(CompressionType type, std::span<const std::byte> from,
                             std::span<std::byte> into);

/// Compresses `cluster` into the start of `into` and returns the bytes used; nullopt when they do not fit, so
/// that it is better stored as it is. Give `into` at most cluster size - 1 bytes.
/// Thread: any. The levels are chosen to beat qemu-img in time at no worse a size (docs/decisions/0004).
std::optional<std::size_t> deflate_cluster(CompressionType type, std::span<const std::byte> cluster,
                                           std::span<std::byte> into);

}  // namespace diskferry::qcow2
