// `diskferry inspect`: everything the project knows of an image, its chain and its storage. Changes nothing.
#include "diskferry/units.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <ostream>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct InspectOptions {
  SourceImageOptions image;
  bool as_json = false;
};

/// What is worth keeping of an image once it is closed.
struct Inspection {
  std::vector<LayerDescription> layers;
  std::vector<BitmapDescription> bitmaps;
  std::optional<DeviceInfo> device{};
  std::uint64_t size_bytes = 0;

  /// Every layer and data file could be opened.
  bool is_complete() const {
    return std::ranges::none_of(layers, [](const LayerDescription& layer) {
      return layer.problem.has_value() || layer.data_file_problem.has_value();
    });
  }
};

Task<Result<Inspection>> inspect(DriverContext& context, ImageUri uri, ImageOpenOptions options) {
  options.allow_partial = true;
  DISKFERRY_CO_TRY(auto image, co_await open_image(context, std::move(uri), std::move(options)));
  Inspection found{.layers = image.layers(), .bitmaps = {}, .size_bytes = image.layers().front().size_bytes};
  if (image.has_device()) {
    found.device = image.device().info();
    found.size_bytes = image.device().size_bytes();
  }
  for (const auto& bitmap : image.bitmaps()) found.bitmaps.push_back(bitmap->description());
  DISKFERRY_CO_CHECK(co_await image.close());
  co_return found;
}

std::string_view name_of(Compression compression) {
  switch (compression) {
    case Compression::none:
      return "none";
    case Compression::zlib:
      return "zlib";
    case Compression::zstd:
      return "zstd";
  }
  return "none";
}
std::string_view name_of(ZeroSupport zero) {
  switch (zero) {
    case ZeroSupport::none:
      return "none";
    case ZeroSupport::slow:
      return "slow";
    case ZeroSupport::fast:
      return "fast";
    case ZeroSupport::unmapping:
      return "unmapping";
  }
  return "none";
}

// JSON ----------------------------------------------------------------------------------------------------

json::object to_json(const SnapshotDescription& snapshot) {
  return {{"id", snapshot.id},
          {"name", snapshot.name},
          {"virtual-size", snapshot.size_bytes},
          {"vm-state-size", snapshot.vm_state_bytes},
          {"created", snapshot.created_s}};
}

json::object to_json(const BitmapDescription& bitmap) {
  json::object object{{"name", bitmap.name},
                      {"granularity", bitmap.granularity_bytes},
                      {"in-use", bitmap.is_in_use},
                      {"auto", bitmap.is_auto}};
  if (!bitmap.problem.empty()) object["problem"] = bitmap.problem;
  return object;
}

template <class Element>
json::array to_json_array(const std::vector<Element>& elements) {
  json::array array;
  for (const Element& element : elements) array.push_back(to_json(element));
  return array;
}

json::object to_json(const Error& problem) {
  return {{"kind", to_string(problem.kind())}, {"message", printable(problem.message())}};
}

json::object to_json(const LayerDescription& layer) {
  if (layer.problem) return {{"image", layer.uri.without_secrets()}, {"problem", to_json(*layer.problem)}};
  json::object object{{"image", layer.uri.without_secrets()},
                      {"format", layer.format},
                      {"virtual-size", layer.size_bytes},
                      {"actual-size", layer.allocated_bytes}};
  if (layer.cluster_bytes != 0) {
    object["cluster-size"] = layer.cluster_bytes;
    object["compat"] = layer.compatibility;
    object["compression-type"] = name_of(layer.compression);
    object["refcount-bits"] = layer.refcount_bits;
    object["extended-l2"] = layer.has_extended_l2;
    object["dirty"] = layer.is_dirty;
    object["corrupt"] = layer.is_corrupt;
  }
  if (!layer.data_file.empty()) object["data-file"] = layer.data_file;
  if (layer.data_file_problem) object["data-file-problem"] = to_json(*layer.data_file_problem);
  if (!layer.backing_name.empty()) {
    object["backing-filename"] = layer.backing_name;
    object["backing-filename-format"] = layer.backing_format;
  }
  object["snapshots"] = to_json_array(layer.snapshots);
  object["bitmaps"] = to_json_array(layer.bitmaps);
  return object;
}

json::object to_json(const DeviceInfo& device) {
  return {{"name", device.name},
          {"block-size", device.block_bytes},
          {"preferred-size", device.preferred_bytes},
          {"request-size-max", device.request_bytes_max},
          {"parallel-requests", device.parallel_requests},
          {"read-only", device.is_read_only},
          {"zero", name_of(device.zero)},
          {"discard", device.can_discard},
          {"extents", device.can_report_extents},
          {"fua", device.can_fua},
          {"multi-connection", device.can_multi_connection},
          {"rotational", device.is_rotational}};
}

json::object to_json(const Inspection& found) {
  json::array layers;
  for (const auto& layer : found.layers) layers.push_back(to_json(layer));
  return {{"image", found.layers.front().uri.without_secrets()},
          {"format", found.layers.front().format},
          {"virtual-size", found.size_bytes},
          {"complete", found.is_complete()},
          {"layers", std::move(layers)},
          {"bitmaps", to_json_array(found.bitmaps)},
          {"device", found.device ? json::value(to_json(*found.device)) : json::value(nullptr)}};
}

// Text ----------------------------------------------------------------------------------------------------

std::string yes_no(bool value) {
  return value ? "yes" : "no";
}

std::string bitmap_text(const BitmapDescription& bitmap) {
  std::string text = fmt::format("{}, {} a bit", bitmap.name, format_bytes(bitmap.granularity_bytes));
  if (bitmap.is_auto) text += ", recording";
  if (bitmap.is_in_use) text += ", in use (not closed properly: content means nothing)";
  if (!bitmap.problem.empty()) text += ", unreadable: " + bitmap.problem;
  return text;
}

std::string state_text(const LayerDescription& layer) {
  if (layer.is_corrupt) return "marked corrupt";
  if (layer.is_dirty) return "not closed properly (reference counts may be stale)";
  return {};
}

std::string format_text(const LayerDescription& layer) {
  if (layer.cluster_bytes == 0) return layer.format;
  return fmt::format("{} {}, {} clusters, {}{}-bit reference counts{}", layer.format, layer.compatibility,
                     format_bytes(layer.cluster_bytes),
                     layer.compression == Compression::none
                         ? std::string{}
                         : fmt::format("{} compression, ", name_of(layer.compression)),
                     layer.refcount_bits, layer.has_extended_l2 ? ", extended L2" : "");
}

FieldList layer_fields(const LayerDescription& layer) {
  FieldList fields;
  fields.add("image", layer.uri.to_string());
  if (layer.problem) {
    fields.add("problem", printable(layer.problem->message()));
    return fields;
  }
  fields.add("format", format_text(layer));
  fields.add("disk size", bytes_for_people(layer.size_bytes));
  if (layer.allocated_bytes != 0) fields.add("allocated", bytes_for_people(layer.allocated_bytes));
  fields.add("state", state_text(layer));
  fields.add("data file", layer.data_file);
  if (layer.data_file_problem) fields.add("problem", printable(layer.data_file_problem->message()));
  if (!layer.backing_name.empty())
    fields.add("backing image",
               layer.backing_name + (layer.backing_format.empty() ? std::string(" (format not declared)")
                                                                  : " (" + layer.backing_format + ")"));
  for (const auto& snapshot : layer.snapshots)
    fields.add("snapshot",
               fmt::format("{} \"{}\", {}{}", snapshot.id, snapshot.name, format_bytes(snapshot.size_bytes),
                           snapshot.vm_state_bytes != 0 ? ", with VM state" : ""));
  for (const auto& bitmap : layer.bitmaps) fields.add("bitmap", bitmap_text(bitmap));
  return fields;
}

FieldList device_fields(const DeviceInfo& device) {
  FieldList fields;
  fields.add("smallest request", bytes_for_people(device.block_bytes));
  fields.add("preferred request", bytes_for_people(device.preferred_bytes));
  fields.add("largest request", bytes_for_people(device.request_bytes_max));
  fields.add("requests in flight", fmt::format("{}", device.parallel_requests));
  fields.add("zeroing", std::string(name_of(device.zero)));
  fields.add("discard", yes_no(device.can_discard));
  fields.add("extents", yes_no(device.can_report_extents));
  fields.add("FUA", yes_no(device.can_fua));
  fields.add("multi-connection", yes_no(device.can_multi_connection));
  return fields;
}

void print_text(std::ostream& out, const Inspection& found) {
  layer_fields(found.layers.front()).print(out);
  for (std::size_t depth = 1; depth < found.layers.size(); ++depth) {
    const bool is_base = depth + 1 == found.layers.size();
    out << "\nlayer " << depth
        << (found.layers[depth].problem ? " (cannot be opened)"
            : is_base                   ? " (base)"
                                        : "")
        << "\n";
    layer_fields(found.layers[depth]).print(out, "  ");
  }
  if (!found.device) return;
  out << "\nstorage\n";
  device_fields(*found.device).print(out, "  ");
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  add_image_argument(app, options->image.name, "IMAGE", "the image to look at");
  add_source_options(app, options->image);
  add_json_flag(app, options->as_json);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_TRY(auto uri, options->image.uri());
    DISKFERRY_TRY(const auto found,
                  invocation.runtime.run_until_signal(
                      inspect(invocation.runtime.context(), std::move(uri), options->image.open_options())));
    if (options->as_json) {
      print_json(invocation.out, to_json(found));
    } else {
      print_text(invocation.out, found);
    }
    return ExitCode::done;
  };
}

}  // namespace

extern const Command inspect_command;
const Command inspect_command{
    .name = "inspect",
    .summary = "show format, size, backing chain, snapshots, bitmaps and what the storage can do",
    .examples =
        "  diskferry inspect disk.qcow2\n"
        "  diskferry inspect --json nbd://host/export | jq .device",
    .declare = &declare};

}  // namespace diskferry::cli
