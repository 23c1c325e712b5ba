// See target.hpp.
#include "gateway/copy/target.hpp"

#include "diskferry/units.hpp"
#include "drivers/file/file_identity.hpp"
#include "drivers/registry.hpp"
#include "drivers/support/blocking_pool.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <sys/stat.h>

namespace diskferry {
namespace {

/// On one host: larger ones leave the second-level cache, smaller ones cost calls (CPU seconds for 2 GiB in
/// memory, verified: 128 KiB 1.18, 256 KiB 1.19, 512 KiB 1.22, 1 MiB 1.26; cold disks like larger ones).
constexpr std::uint64_t local_request_bytes = 512 * kib;
/// Over NBD larger requests are slower (measured by nbdcopy's authors: 2 MiB costs 1.2 times as much).
constexpr std::uint64_t network_request_bytes = 256 * kib;
/// 0: not a storage server's.
std::uint64_t server_request_bytes(const ImageUri& uri) {
  const auto driver = find_driver(uri);
  return driver ? (*driver)->server_request_bytes : 0;
}

std::uint64_t best_request_bytes(const CopyRequest& request) {
  if (request.source.is_on_this_host() && request.target.is_on_this_host()) return local_request_bytes;
  const std::uint64_t best =
      std::max(server_request_bytes(request.source), server_request_bytes(request.target));
  return best != 0 ? best : network_request_bytes;
}

/// Of a storage server's units one in so many is read back, where nobody says otherwise: what is written to a
/// wrong place is so as a rule, and shows in the first few.
constexpr unsigned sample_every = 16;

unsigned read_back_every(VerifyLevel level) {
  if (level == VerifyLevel::cache) return 1;
  return level == VerifyLevel::sample ? sample_every : 0;
}

/// Payload in flight, re-reads included: half of the process's pool.
constexpr std::uint64_t window_bytes = 64 * mib;
constexpr unsigned requests_max = 256;
/// Into an image on this host, each thread has one request to work on and one that waits. With more, who
/// holds the tables' lock waits behind others' compressing, and all wait for it (1 GiB verified, 2 cores, 32
/// and 4 requests: zstd 2.87 and 2.09 s, zlib 5.1 and 3.8 s; a chain to qcow2 1.05 and 0.83 s).
constexpr unsigned image_requests_per_reactor = 2;

}  // namespace

Task<Result<TargetState>> look_at_target(DriverContext& context, const CopyRequest& request) {
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(request.target));
  auto volume = co_await look_at_volume(context, request.target, {.for_writing = true});
  if (!volume) co_return unexpected(std::move(volume).error().in("look at the target"));
  auto keys = co_await storage_keys(context, request.target, volume->identity);
  if (!keys) co_return unexpected(std::move(keys).error().in("look at the target"));
  co_return TargetState{
      .volume = std::move(*volume), .keys = std::move(*keys), .can_create = driver->create != nullptr};
}

Task<Result<TargetState>> look_at_sized_target(DriverContext& context, const CopyRequest& request) {
  DISKFERRY_CO_TRY(TargetState target, co_await look_at_target(context, request));
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(request.target));
  if (driver->look != nullptr || !target.volume.exists) co_return target;
  DISKFERRY_CO_TRY(Image opened, co_await open_image(context, request.target, {.format = "raw"}));
  target.volume.size_bytes = opened.device().size_bytes();
  DISKFERRY_CO_CHECK(co_await opened.close());
  co_return target;
}

Result<TargetAction> decide_target(const TargetState& state, const CopyRequest& request) {
  const std::string name = request.target.to_string();
  const bool wants_content = request.top_only || !request.backing_name.empty();
  if (!request.target_format.empty() && request.target_format != "raw" && request.target_format != "qcow2")
    return unexpected(
        fail(ErrorKind::unsupported, "copy", name)
            .why(fmt::format("images of the format '{}' are not written", printable(request.target_format)))
            .remedy("say -O raw or -O qcow2"));
  // What can only be read helps nobody to overwrite.
  const auto read_only = std::ranges::find(state.volume.obstacles, ErrorKind::read_only,
                                           [](const Error& one) { return one.kind(); });
  if (read_only != state.volume.obstacles.end()) return unexpected(*read_only);
  if (request.top_only && request.backing_name.empty() && request.existing != CopyRequest::Existing::use)
    return unexpected(fail(ErrorKind::invalid_argument, "copy", name)
                          .why("only the top layer is to be copied, and the new image has no backing image")
                          .remedy("name it with --backing"));
  if (wants_content && request.target_format == "raw")
    return unexpected(
        fail(ErrorKind::invalid_argument, "copy", name).why("a raw image cannot have a backing image"));
  if (!state.volume.exists) {
    // Nobody can make it from here: what its storage says is all that helps.
    if (!state.can_create && !state.volume.obstacles.empty())
      return unexpected(state.volume.obstacles.front());
    if (request.existing == CopyRequest::Existing::use)
      return unexpected(fail(ErrorKind::not_found, "open the target", name)
                            .remedy("leave out --no-create to have it created"));
    return TargetAction::create;
  }
  if (request.resume) return TargetAction::go_on;
  switch (request.existing) {
    case CopyRequest::Existing::use:
      return TargetAction::open;
    case CopyRequest::Existing::refuse:
      return unexpected(fail(ErrorKind::already_exists, "create the target", name)
                            .remedy("give --overwrite to replace its content, or name another target"));
    case CopyRequest::Existing::overwrite:
      break;
  }
  // A raw disk that cannot be emptied is used as it is; every other target gets a new, empty image.
  if (request.target_format == "raw" && !state.volume.can_be_emptied) return TargetAction::open;
  return TargetAction::replace;
}

Result<TargetAction> decide_copy_target(const TargetState& state, const CopyRequest& request) {
  auto action = decide_target(state, request);
  if (action || action.error().kind() != ErrorKind::already_exists) return action;
  return unexpected(std::move(action).error().remedy(
      "give --overwrite to replace its content, --no-create to copy into it as it is, or --resume to go on "
      "with an interrupted copy"));
}

Task<Result<void>> create_target(DriverContext& context, const CopyRequest& request,
                                 std::uint64_t size_bytes) {
  // QEMU rounds the size of a qcow2 image down to whole sectors: the guest would lose the end of its disk.
  constexpr std::uint64_t sector_bytes = 512;
  if (request.target_format != "raw") size_bytes = align_up(size_bytes, sector_bytes);
  co_return co_await create_image(context, request.target,
                                  {.format = request.target_format,
                                   .size_bytes = size_bytes,
                                   .cluster_bytes = request.cluster_bytes,
                                   .compression_type = request.compression,
                                   .preallocate = request.preallocate,
                                   .backing_name = request.backing_name,
                                   .backing_format = request.backing_format,
                                   .replace = request.existing == CopyRequest::Existing::overwrite});
}

bool can_remove_target(const ImageUri& target) noexcept {
  const auto driver = find_driver(target);
  return driver && (*driver)->remove != nullptr;
}

Task<Result<void>> remove_created_target(DriverContext& context, ImageUri target) {
  if (!can_remove_target(target)) co_return Result<void>{};
  const auto driver = find_driver(target);
  auto removed = co_await (*driver)->remove(context, std::move(target));
  if (!removed && removed.error().kind() != ErrorKind::not_found) co_return removed;
  co_return Result<void>{};
}

bool is_block_device(const ImageUri& storage) noexcept {
  struct stat found{};
  return storage.is_file() && ::stat(storage.path().c_str(), &found) == 0 && S_ISBLK(found.st_mode);
}

Result<void> refuse_same_storage(const std::vector<SourceLayer>& layers, const TargetState& target,
                                 const ImageUri& name) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (common_key(layers[i].keys, target.keys).empty()) continue;
    return unexpected(fail(ErrorKind::in_use, "copy", name.to_string())
                          .why(i == 0 ? "source and target are the same image"
                                      : "the target is a backing image of the source")
                          .remedy("name another target"));
  }
  return {};
}

std::string sectors_unlike(CopyEngine::Devices devices, std::string_view target_format) {
  constexpr std::uint32_t usual_bytes = 512;  // of disks in files, which have no sectors of their own
  const std::uint32_t had = std::max(usual_bytes, devices.source.info().block_bytes);
  const std::uint32_t has = devices.target.info().block_bytes;
  if (target_format != "raw" || has <= had) return {};
  return fmt::format(
      "the target has sectors of {} bytes, and the disk may have been made for {}: let the machine's disk "
      "keep "
      "logical blocks of that size (QEMU's default is 512), or its partitions are not found",
      has, had);
}

Error too_small(const ImageUri& target, std::uint64_t has_bytes, std::uint64_t needed_bytes) {
  return fail(ErrorKind::too_large, "copy", target.to_string())
      .why(fmt::format("the target has {} ({} bytes), the source {} ({} bytes)", format_bytes(has_bytes),
                       has_bytes, format_bytes(needed_bytes), needed_bytes))
      .remedy("enlarge the target or choose another one");
}

bool keeps_size(const TargetState& target, const CopyRequest& request) noexcept {
  return target.volume.exists && !target.volume.can_be_emptied && request.target_format == "raw";
}

Result<void> refuse_too_small(const TargetState& target, const CopyRequest& request,
                              std::uint64_t needed_bytes) {
  if (!keeps_size(target, request) || target.volume.size_bytes >= needed_bytes) return {};
  return unexpected(too_small(request.target, target.volume.size_bytes, needed_bytes));
}

VerifyLevel usual_verification(const ImageUri& target) {
  return server_request_bytes(target) != 0 ? VerifyLevel::sample : VerifyLevel::cache;
}

Tuning tune(const CopyRequest& request, CopyEngine::Devices devices, std::string_view target_format,
            std::size_t reactors) {
  const BlockDevice& source = devices.source;
  const BlockDevice& target = devices.target;
  const bool is_raw = target_format == "raw";
  const std::uint64_t cluster =
      std::bit_floor(is_raw ? std::min(target.info().preferred_bytes, 4096u) : target.info().preferred_bytes);
  const std::uint64_t align =
      std::max<std::uint64_t>({source.info().block_bytes, target.info().block_bytes, cluster, 512});
  const bool is_local = request.source.is_on_this_host() && request.target.is_on_this_host();
  std::uint64_t wanted =
      request.request_bytes != 0 ? std::bit_floor(request.request_bytes) : best_request_bytes(request);
  wanted = std::clamp<std::uint64_t>(wanted, align, BufferPool::buffer_bytes_max / 2);

  Tuning tuning;
  tuning.plan = {.source_bytes = source.size_bytes(),
                 .target_bytes = target.size_bytes(),
                 .align_bytes = align,
                 .request_bytes = wanted,
                 .top_only = request.top_only};
  tuning.engine = {
      .request_bytes = wanted,
      .bytes_per_s = request.bytes_per_s,
      .granularity_bytes = std::max<std::uint64_t>({4096, cluster, target.info().block_bytes}),
      .may_unmap = request.preallocate != ImageCreateOptions::Preallocate::full,
      .read_back_every = read_back_every(request.verify.value_or(usual_verification(request.target)))};
  const std::uint64_t in_flight_bytes = wanted * (tuning.engine.read_back_every == 1 ? 2 : 1);
  auto requests = std::max(source.info().parallel_requests, target.info().parallel_requests);
  if (is_local && !is_raw) requests = std::max<unsigned>(4, image_requests_per_reactor * reactors);
  if (request.requests != 0) requests = request.requests;
  requests = std::min<std::uint64_t>(requests, std::max<std::uint64_t>(2, window_bytes / in_flight_bytes));
  tuning.engine.requests = std::clamp(requests, 1u, requests_max);
  return tuning;
}

std::string describe_options(const CopyRequest& request) {
  constexpr std::array<std::string_view, 3> compressions{"none", "zlib", "zstd"};
  return fmt::format("compression={} cluster={} top={} backing={}",
                     compressions[static_cast<std::size_t>(request.compression)], request.cluster_bytes,
                     request.top_only ? "yes" : "no", printable(request.backing_name));
}

Task<std::optional<std::uint64_t>> allocated_bytes(DriverContext& context, std::vector<ImageUri> images) {
  std::uint64_t bytes = 0;
  for (const ImageUri& uri : images) {
    if (!uri.is_file()) co_return std::nullopt;
    const auto file = co_await context.blocking_pool.run([&uri] { return file_identity(uri.path()); });
    if (!file) co_return std::nullopt;
    bytes += file->allocated_bytes;
  }
  co_return bytes;
}

}  // namespace diskferry
