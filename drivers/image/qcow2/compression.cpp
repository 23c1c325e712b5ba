// Inflating with libdeflate (whole buffers, faster than zlib's stream) and libzstd.
#include "drivers/image/qcow2/compression.hpp"

#include <memory>

#include <libdeflate.h>
#include <zstd.h>

namespace diskferry::qcow2 {
namespace {

Error broken(std::string why) {
  return fail(ErrorKind::corrupt, "inflate cluster").why(std::move(why));
}

Result<void> inflate_zlib(std::span<const std::byte> from, std::span<std::byte> into) {
  // One a thread: it is 10 KiB of tables, used within one call.
  thread_local const std::unique_ptr<libdeflate_decompressor, decltype(&libdeflate_free_decompressor)>
      inflater(libdeflate_alloc_decompressor(), &libdeflate_free_decompressor);
  std::size_t used = 0;
  std::size_t made = 0;
  const auto result = libdeflate_deflate_decompress_ex(inflater.get(), from.data(), from.size(), into.data(),
                                                       into.size(), &used, &made);
  if (result != LIBDEFLATE_SUCCESS) return unexpected(broken("the deflate stream is damaged"));
  if (made != into.size()) return unexpected(broken("the deflate stream ends before the cluster does"));
  return {};
}

Result<void> inflate_zstd(std::span<const std::byte> from, std::span<std::byte> into) {
  thread_local const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> inflater(ZSTD_createDCtx(),
                                                                                   &ZSTD_freeDCtx);
  ZSTD_DCtx_reset(inflater.get(), ZSTD_reset_session_only);
  ZSTD_outBuffer out{into.data(), into.size(), 0};
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  while (out.pos < out.size) {
    const std::size_t before = in.pos + out.pos;
    if (ZSTD_isError(ZSTD_decompressStream(inflater.get(), &out, &in)) != 0)
      return unexpected(broken("the zstd frame is damaged"));
    if (in.pos + out.pos == before) return unexpected(broken("the zstd frame ends before the cluster does"));
  }
  return {};
}

}  // namespace

Result<void> inflate_cluster(CompressionType type, std::span<const std::byte> from,
                             std::span<std::byte> into) {
  return type == CompressionType::zlib ? inflate_zlib(from, into) : inflate_zstd(from, into);
}

}  // namespace diskferry::qcow2
