// libdeflate works on whole buffers and is two to four times as fast as zlib; it wants a stream with a proper
// end. zlib takes what libdeflate refuses, so that every cluster QEMU reads is read here.
#include "drivers/image/qcow2/compression.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <zlib.h>

#include <libdeflate.h>
#include <zstd.h>

namespace diskferry::qcow2 {
namespace {

// The fastest levels whose result is no larger than qemu-img's: docs/decisions/0004-deflate-window.md has the
// figures.
constexpr int deflate_level = 2;
constexpr int zstd_level = 3;
/// The tables that level 3 has for large inputs, for a cluster too: 10 % faster than its own for 64 KiB, and
/// the result no larger. (Level 4: 0.8 % smaller, 6 % slower. 384 MiB of program files: 0.91, 1.01, 0.97 s.)
constexpr int zstd_hash_log = 17;
constexpr int zstd_chain_log = 16;
/// The largest window a frame may ask for when it has to be inflated as a stream: four times the largest
/// cluster. (zstd's own limit of 128 MiB would let an image choose our memory.)
constexpr int zstd_window_log_max = 23;

struct Release {
  void operator()(libdeflate_compressor* one) const noexcept { libdeflate_free_compressor(one); }
  void operator()(libdeflate_decompressor* one) const noexcept { libdeflate_free_decompressor(one); }
  void operator()(ZSTD_CCtx* one) const noexcept { ZSTD_freeCCtx(one); }
  void operator()(ZSTD_DCtx* one) const noexcept { ZSTD_freeDCtx(one); }
};
template <class T>
T* required(const std::unique_ptr<T, Release>& one) {
  if (!one) throw std::bad_alloc();
  return one.get();
}
// One working area a thread: they are large, and making one costs more than a small cluster.
libdeflate_compressor* deflater() {
  thread_local const std::unique_ptr<libdeflate_compressor, Release> one(
      libdeflate_alloc_compressor(deflate_level));
  return required(one);
}
libdeflate_decompressor* inflater() {
  thread_local const std::unique_ptr<libdeflate_decompressor, Release> one(libdeflate_alloc_decompressor());
  return required(one);
}
ZSTD_CCtx* zstd_deflater() {
  thread_local const std::unique_ptr<ZSTD_CCtx, Release> one = [] {
    std::unique_ptr<ZSTD_CCtx, Release> made(ZSTD_createCCtx());
    if (made) {
      ZSTD_CCtx_setParameter(made.get(), ZSTD_c_compressionLevel, zstd_level);
      ZSTD_CCtx_setParameter(made.get(), ZSTD_c_hashLog, zstd_hash_log);
      ZSTD_CCtx_setParameter(made.get(), ZSTD_c_chainLog, zstd_chain_log);
    }
    return made;
  }();
  return required(one);
}
ZSTD_DCtx* zstd_inflater() {
  thread_local const std::unique_ptr<ZSTD_DCtx, Release> one = [] {
    std::unique_ptr<ZSTD_DCtx, Release> made(ZSTD_createDCtx());
    if (made) ZSTD_DCtx_setParameter(made.get(), ZSTD_d_windowLogMax, zstd_window_log_max);
    return made;
  }();
  return required(one);
}

Error corrupt(const char* why) {
  return fail(ErrorKind::corrupt, "inflate a compressed cluster").why(why);
}

/// A stream that does not end where the cluster does, or without an end mark.
bool inflate_with_zlib(std::span<const std::byte> from, std::span<std::byte> into) {
  z_stream stream{};
  // The largest window: streams of every writer fit.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(into.data());
  stream.avail_out = static_cast<uInt>(into.size());
  const int end = inflate(&stream, Z_FINISH);
  const bool filled = stream.avail_out == 0;
  inflateEnd(&stream);
  return filled && (end == Z_STREAM_END || end == Z_BUF_ERROR || end == Z_OK);
}

Result<void> inflate_deflate(std::span<const std::byte> from, std::span<std::byte> into) {
  const auto end =
      libdeflate_deflate_decompress(inflater(), from.data(), from.size(), into.data(), into.size(), nullptr);
  if (end == LIBDEFLATE_SUCCESS || inflate_with_zlib(from, into)) return {};
  return unexpected(corrupt("the data are not a deflate stream of one cluster"));
}

Result<void> inflate_zstd_stream(std::span<const std::byte> from, std::span<std::byte> into) {
  ZSTD_DCtx* context = zstd_inflater();
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  ZSTD_inBuffer input{from.data(), from.size(), 0};
  ZSTD_outBuffer output{into.data(), into.size(), 0};
  while (output.pos < output.size) {
    const std::size_t in_before = input.pos;
    const std::size_t out_before = output.pos;
    const std::size_t end = ZSTD_decompressStream(context, &output, &input);
    if (ZSTD_isError(end)) return unexpected(corrupt("the data are not Zstandard frames"));
    if (input.pos == in_before && output.pos == out_before)
      return unexpected(corrupt("the Zstandard frames end before the cluster is full"));
  }
  return {};
}

Result<void> inflate_zstd(std::span<const std::byte> from, std::span<std::byte> into) {
  // Whole frames at once need no window and no copy; anything unusual is left to the stream.
  std::span<const std::byte> rest = from;
  std::span<std::byte> empty = into;
  while (!empty.empty()) {
    const std::size_t frame = ZSTD_findFrameCompressedSize(rest.data(), rest.size());
    if (ZSTD_isError(frame) || frame == 0) return inflate_zstd_stream(from, into);
    const std::size_t made =
        ZSTD_decompressDCtx(zstd_inflater(), empty.data(), empty.size(), rest.data(), frame);
    if (ZSTD_isError(made)) return inflate_zstd_stream(from, into);
    rest = rest.subspan(frame);
    empty = empty.subspan(made);
  }
  return {};
}

}  // namespace

Result<void> inflate_cluster(CompressionType type, std::span<const std::byte> from,
                             std::span<std::byte> into) {
  return type == CompressionType::zstd ? inflate_zstd(from, into) : inflate_deflate(from, into);
}

std::optional<std::size_t> deflate_cluster(CompressionType type, std::span<const std::byte> cluster,
                                           std::span<std::byte> into) {
  if (type == CompressionType::zlib) {
    const std::size_t used =
        libdeflate_deflate_compress(deflater(), cluster.data(), cluster.size(), into.data(), into.size());
    return used == 0 ? std::nullopt : std::optional(used);
  }
  const std::size_t used =
      ZSTD_compress2(zstd_deflater(), into.data(), into.size(), cluster.data(), cluster.size());
  return ZSTD_isError(used) ? std::nullopt : std::optional(used);
}

}  // namespace diskferry::qcow2
