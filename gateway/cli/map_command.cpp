// `diskferry map`: which parts of the guest-visible disk hold data, and in which layer. Streams: an image may
// have millions of extents.
#include "diskferry/units.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <ostream>

#include <boost/json/object.hpp>

namespace diskferry::cli {
namespace json = boost::json;
namespace {

struct MapOptions {
  SourceImageOptions image;
  bool as_json = false;
};

/// An extent in the words of `qemu-img map`.
struct MapEntry {
  std::uint64_t start = 0;
  std::uint64_t length = 0;
  std::uint32_t depth = 0;
  bool is_present = false;
  bool is_zero = false;
  bool has_data = false;
  std::uint64_t host_offset = Extent::no_host_offset;

  bool is_continued_by(const MapEntry& next) const {
    const bool offset_goes_on = host_offset == Extent::no_host_offset
                                    ? next.host_offset == Extent::no_host_offset
                                    : next.host_offset == host_offset + length;
    return next.start == start + length && next.depth == depth && next.is_present == is_present &&
           next.is_zero == is_zero && next.has_data == has_data && offset_goes_on;
  }
};

/// The layer that what is nowhere allocated is said of: the deepest one that the chain still reaches at
/// `offset`, for a backing image may be shorter than its overlay.
std::uint32_t deepest_layer_at(const std::vector<LayerDescription>& layers, std::uint64_t offset) {
  std::uint32_t depth = 0;
  while (depth + 1 < layers.size() && offset < layers[depth + 1].size_bytes) ++depth;
  return depth;
}

/// Where `deepest_layer_at` changes next after `offset`.
std::uint64_t next_layer_end(const std::vector<LayerDescription>& layers, std::uint64_t offset) {
  std::uint64_t end = UINT64_MAX;
  for (const LayerDescription& layer : layers) {
    if (layer.size_bytes > offset) end = std::min(end, layer.size_bytes);
  }
  return end;
}

MapEntry entry_of(const Extent& extent, const std::vector<LayerDescription>& layers) {
  MapEntry entry{.start = extent.offset,
                 .length = extent.length,
                 .depth = extent.depth,
                 .is_present = extent.depth != Extent::depth_none,
                 .is_zero = extent.reads_zero,
                 .has_data = !extent.reads_zero && !extent.is_hole,
                 .host_offset = extent.host_offset};
  if (!entry.is_present) {
    entry.depth = deepest_layer_at(layers, extent.offset);
    entry.length = std::min(extent.length, next_layer_end(layers, extent.offset) - extent.offset);
  } else if (extent.depth < layers.size() && layers[extent.depth].format == "raw") {
    entry.host_offset = extent.offset;  // raw: a byte of the disk is that byte of the storage, hole or not
  }
  return entry;
}

/// Prints entries one by one, merged where they go on.
class MapPrinter {
 public:
  MapPrinter(std::ostream& out, bool as_json) : out_(out), as_json_(as_json) {
    out_ << (as_json_ ? "[" : "          start         length  depth  content\n");
  }
  void add(const MapEntry& entry) {
    if (pending_ && pending_->is_continued_by(entry)) {
      pending_->length += entry.length;
      return;
    }
    print_pending();
    pending_ = entry;
  }
  void finish() {
    print_pending();
    if (as_json_) out_ << "]\n";
  }

 private:
  void print_pending() {
    if (!pending_) return;
    const MapEntry entry = *std::exchange(pending_, std::nullopt);
    as_json_ ? print_json_entry(entry) : print_text_entry(entry);
    is_first_ = false;
  }
  void print_json_entry(const MapEntry& entry) {
    json::object object{{"start", entry.start},        {"length", entry.length}, {"depth", entry.depth},
                        {"present", entry.is_present}, {"zero", entry.is_zero},  {"data", entry.has_data}};
    if (entry.host_offset != Extent::no_host_offset) object["offset"] = entry.host_offset;
    out_ << (is_first_ ? "" : ",\n") << to_json_line(object);
  }
  void print_text_entry(const MapEntry& entry) {
    const std::string_view content = entry.has_data ? "data" : entry.is_zero ? "zero" : "undefined";
    out_ << fmt::format("{:15} {:14}  {:5}  {}{}\n", entry.start, entry.length, entry.depth, content,
                        entry.is_present ? "" : " (nowhere allocated)");
  }

  std::ostream& out_;
  const bool as_json_;
  bool is_first_ = true;
  std::optional<MapEntry> pending_;
};

/// How many extents are asked for at once: enough to make the question cheap, and a bound on memory.
constexpr std::size_t extents_per_call = 4096;

Task<Result<void>> print_extents(Image& image, MapPrinter& printer) {
  const std::uint64_t size_bytes = image.device().size_bytes();
  std::uint64_t offset = 0;
  while (offset < size_bytes) {
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("map"));
    DISKFERRY_CO_TRY(const auto extents,
                     co_await image.device().extents({offset, size_bytes - offset}, extents_per_call));
    for (Extent extent : extents) {
      while (extent.length != 0) {
        const MapEntry entry = entry_of(extent, image.layers());
        printer.add(entry);
        extent.offset += entry.length;
        extent.length -= entry.length;
        if (extent.host_offset != Extent::no_host_offset) extent.host_offset += entry.length;
      }
      offset = extent.offset;
    }
  }
  co_return Result<void>{};
}

Task<Result<void>> map(Invocation& invocation, ImageUri uri, const MapOptions& options) {
  DISKFERRY_CO_TRY(auto image, co_await open_image(invocation.runtime.context(), std::move(uri),
                                                   options.image.open_options()));
  MapPrinter printer(invocation.out, options.as_json);
  const auto printed = co_await print_extents(image, printer);
  printer.finish();
  const auto closed = co_await image.close();
  if (!printed) co_return printed;
  co_return closed;
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<MapOptions>();
  add_image_argument(app, options->image.name, "IMAGE", "the image to map");
  add_source_options(app, options->image);
  add_json_flag(app, options->as_json);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    DISKFERRY_TRY(auto uri, options->image.uri());
    DISKFERRY_CHECK(invocation.runtime.run_until_signal(map(invocation, std::move(uri), *options)));
    return ExitCode::done;
  };
}

}  // namespace

extern const Command map_command;
const Command map_command{
    .name = "map",
    .summary = "show which parts of the disk hold data, and in which layer of the chain",
    .examples =
        "  diskferry map disk.qcow2\n"
        "  diskferry map --json disk.qcow2 | jq '[.[] | select(.data) | .length] | add'",
    .declare = &declare};

}  // namespace diskferry::cli
