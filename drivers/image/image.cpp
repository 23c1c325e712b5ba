// Opening and creating images: storage first, then the format on top of it.
#include "drivers/image/image.hpp"

#include "drivers/image/chain.hpp"
#include "drivers/registry.hpp"

namespace diskferry {

Image::Image(std::shared_ptr<BlockDevice> device, std::vector<LayerDescription> layers,
             std::vector<std::shared_ptr<BitmapView>> bitmaps)
    : device_(std::move(device)), layers_(std::move(layers)), bitmaps_(std::move(bitmaps)) {}

Task<Result<void>> Image::close() {
  co_return co_await device_->close();
}

Task<Result<Image>> open_image(DriverContext& context, ImageUri uri, ImageOpenOptions options) {
  ChainOpener opener(context, std::move(uri), std::move(options));
  co_return co_await opener.open();
}

Task<Result<void>> create_image(DriverContext& context, ImageUri uri, ImageCreateOptions options) {
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
