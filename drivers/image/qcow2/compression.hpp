// Inflating of compressed clusters.
#pragma once

#include "diskferry/error.hpp"
#include "drivers/image/qcow2/header.hpp"

#include <span>

namespace diskferry::qcow2 {

/// Inflates one cluster. `from` starts with the compressed data and may go on behind them; they end when
/// `into` is full. zlib: a raw deflate stream. zstd: one or more frames.
/// Errors: corrupt (without an object; the caller knows it).
Result<void> inflate_cluster(CompressionType type, std::span<const std::byte> from,
                             std::span<std::byte> into);

}  // namespace diskferry::qcow2
