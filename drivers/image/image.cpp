// Opening and creating images: storage first, then the format on top of it.
#include "drivers/image/image.hpp"

#include "diskferry/units.hpp"
#include "drivers/filters/slice.hpp"
#include "drivers/image/chain.hpp"
#include "drivers/image/qcow2/create.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/registry.hpp"

#include <bit>
#include <filesystem>
#include <system_error>

namespace diskferry {

Image::Image(std::shared_ptr<BlockDevice> device, std::vector<LayerDescription> layers,
             std::vector<std::shared_ptr<BitmapView>> bitmaps)
    : device_(std::move(device)), layers_(std::move(layers)), bitmaps_(std::move(bitmaps)) {}

std::vector<ImageUri> Image::storages() const {
  std::vector<ImageUri> all;
  for (const LayerDescription& layer : layers_) {
    all.push_back(layer.uri);
    if (layer.data_file_uri) all.push_back(*layer.data_file_uri);
    all.insert(all.end(), layer.further_files.begin(), layer.further_files.end());
  }
  return all;
}

Task<Result<void>> Image::close() {
  if (!device_) co_return Result<void>{};
  co_return co_await device_->close();
}

Task<Result<Image>> open_image(DriverContext& context, ImageUri uri, ImageOpenOptions options) {
  // One that is not there allows nothing, which a typing error should not do silently.
  for (const std::string& folder : options.allow_backing) {
    std::error_code failed;
    if (std::filesystem::is_directory(folder, failed)) continue;
    co_return unexpected(fail(failed && failed != std::errc::no_such_file_or_directory
                                  ? kind_of_errno(failed.value())
                                  : ErrorKind::not_found,
                              "allow backing images below", printable(folder))
                             .why(failed ? std::string() : "there is no such folder")
                             .cause(failed));
  }
  const std::optional<Range> part = options.part;
  if (part && options.format != "raw")
    co_return unexpected(fail(ErrorKind::invalid_argument, "open", uri.to_string())
                             .why("only a raw disk can be a part of its storage"));
  ChainOpener opener(context, std::move(uri), std::move(options));
  DISKFERRY_CO_TRY(Image image, co_await opener.open());
  if (!part) co_return image;
  auto sliced = slice_of(image.shared_device(), *part);
  if (sliced) {
    image.put_in_front(*std::move(sliced));
    co_return image;
  }
  (void)co_await image.close();
  co_return unexpected(std::move(sliced).error());
}

namespace {

Result<qcow2::NewImage> new_qcow2(const ImageUri& uri, const ImageCreateOptions& options) {
  const auto wrong = [&](std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "create", uri.to_string()).why(std::move(why)));
  };
  qcow2::NewImage image{.size_bytes = options.size_bytes,
                        .extended_l2 = options.extended_l2,
                        .backing_name = options.backing_name,
                        .backing_format = options.backing_format};
  const std::uint64_t cluster_bytes = options.cluster_bytes != 0 ? options.cluster_bytes : 64 * kib;
  if (!std::has_single_bit(cluster_bytes)) return wrong("the cluster size must be a power of two");
  image.cluster_bits = static_cast<unsigned>(std::countr_zero(cluster_bytes));
  if (!std::has_single_bit(options.refcount_bits)) return wrong("refcount bits must be a power of two");
  image.refcount_order = static_cast<unsigned>(std::countr_zero(options.refcount_bits));
  if (options.compatibility != "1.1" && options.compatibility != "0.10")
    return wrong("compatibility is 0.10 or 1.1, not " + printable(options.compatibility));
  image.version = options.compatibility == "0.10" ? 2 : 3;
  if (options.compression_type == Compression::zstd) image.compression_type = qcow2::CompressionType::zstd;
  if (!options.backing_name.empty() && options.backing_format.empty())
    return wrong("a backing image needs its format with it, so that nobody has to guess");
  return image;
}

Task<Result<void>> create_qcow2(DriverContext& context, ImageUri uri, ImageCreateOptions options) {
  DISKFERRY_CO_TRY(const auto image, new_qcow2(uri, options));
  DISKFERRY_CO_TRY(const auto layout, qcow2::lay_out(image));  // what is impossible leaves the storage alone
  DISKFERRY_CO_TRY(const Driver* driver, find_driver(uri));
  if (driver->create != nullptr) {
    DISKFERRY_CO_CHECK(co_await create_storage(context, uri, {.size_bytes = 0, .replace = options.replace}));
  }
  DISKFERRY_CO_TRY(const auto storage, co_await open_storage(context, uri, {.writable = true}));
  auto created = co_await qcow2::create(*storage, image);
  auto closed = co_await storage->close();
  if (!created) co_return unexpected(std::move(created).error().in("create " + uri.to_string()));
  if (!closed || options.preallocate == ImageCreateOptions::Preallocate::off) co_return closed;

  DISKFERRY_CO_TRY(std::shared_ptr<BlockDevice> reopened,
                   co_await open_storage(context, uri, {.writable = true}));
  DISKFERRY_CO_TRY(const auto device,
                   co_await qcow2::Qcow2Device::open(context, {.name = uri.to_string(),
                                                               .header = layout.header,
                                                               .storage = std::move(reopened),
                                                               .writable = true}));
  auto reserved = co_await device->preallocate(options.preallocate == ImageCreateOptions::Preallocate::full);
  closed = co_await device->close();
  if (!reserved) co_return unexpected(std::move(reserved).error().in("preallocate " + uri.to_string()));
  co_return closed;
}

}  // namespace

Task<Result<void>> create_image(DriverContext& context, ImageUri uri, ImageCreateOptions options) {
  if (options.format == "qcow2") co_return co_await create_qcow2(context, std::move(uri), std::move(options));
  if (options.format != "raw")
    co_return unexpected(fail(ErrorKind::unsupported, "create", uri.to_string())
                             .why("images of this format cannot be created: " + printable(options.format))
                             .remedy("use raw or qcow2"));
  co_return co_await create_storage(
      context, std::move(uri),
      {.size_bytes = options.size_bytes,
       .preallocate = options.preallocate == ImageCreateOptions::Preallocate::full,
       .replace = options.replace});
}

Task<Result<LayerIdentity>> identify(DriverContext& context, ImageUri uri) {
  // Only the start is read, so that somebody else's lock does not matter.
  DISKFERRY_CO_TRY(const auto storage, co_await open_storage(context, uri, {.force_share = true}));
  auto start = co_await read_start(*storage, identity_bytes);
  const auto closed = co_await storage->close();
  if (!start) co_return unexpected(std::move(start).error());
  if (!closed) co_return unexpected(closed.error());
  co_return identity_of(uri, *storage, *start);
}

std::string format_for_target(const ImageUri& uri) {
  return uri.path().ends_with(".qcow2") || uri.path().ends_with(".qcow") ? "qcow2" : "raw";
}

}  // namespace diskferry
