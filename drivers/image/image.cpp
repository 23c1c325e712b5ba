// Opening and creating images: storage first, then the format on top of it.
#include "drivers/image/image.hpp"

#include "drivers/registry.hpp"

namespace diskferry {

Image::Image(DevicePtr device, std::vector<LayerDescription> layers,
             std::vector<std::shared_ptr<BitmapView>> bitmaps)
    : device_(std::move(device)), layers_(std::move(layers)), bitmaps_(std::move(bitmaps)) {}

Task<Result<void>> Image::close() {
  co_return co_await device_->close();
}

Task<Result<Image>> open_image(DriverContext& context, ImageUri uri, ImageOpenOptions options) {
  if (!options.format.empty() && options.format != "raw")
    co_return unexpected(
        fail(ErrorKind::unsupported, "open", uri.to_string()).why("no such format: " + options.format));
  DISKFERRY_CO_TRY(auto device, co_await open_storage(context, uri,
                                                      {.writable = options.writable,
                                                       .force_share = options.force_share,
                                                       .connections = options.connections}));
  std::vector<LayerDescription> layers(1);
  layers[0].uri = uri;
  layers[0].format = "raw";
  layers[0].size_bytes = device->size_bytes();
  co_return Image(std::move(device), std::move(layers), {});
}

Task<Result<void>> create_image(DriverContext& context, ImageUri uri, ImageCreateOptions options) {
  co_return co_await create_storage(
      context, std::move(uri),
      {.size_bytes = options.size_bytes,
       .preallocate = options.preallocate == ImageCreateOptions::Preallocate::full,
       .replace = options.replace});
}

Task<Result<LayerIdentity>> identify(DriverContext&, ImageUri) {
  co_return LayerIdentity{};
}

std::string format_for_target(const ImageUri& uri) {
  return uri.path().ends_with(".qcow2") || uri.path().ends_with(".qcow") ? "qcow2" : "raw";
}

}  // namespace diskferry
