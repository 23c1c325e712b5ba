// Shared options. Must never open anything: the line is checked before anything is touched.
#include "gateway/cli/options.hpp"

#include "diskferry/units.hpp"
#include "drivers/image/format.hpp"

#include <charconv>
#include <fmt/format.h>

namespace diskferry::cli {

ImageOpenOptions SourceImageOptions::open_options() const {
  ImageOpenOptions options;
  options.format = format;
  options.force_share = force_share;
  options.connections = connections;
  options.allow_backing = allow_backing;
  options.allow_data_file = allow_data_file;
  options.snapshot = snapshot;
  return options;
}

CLI::Option* add_image_argument(CLI::App& app, std::string& name, const std::string& positional,
                                const std::string& help) {
  return app.add_option(positional, name, help)->required()->type_name("");
}

void add_source_options(CLI::App& app, SourceImageOptions& options) {
  app.add_option(
         "-f,--source-format", options.format,
         "format of the image: raw, qcow2, vmdk, vhdx, vpc, vdi, ... (default: found by looking at it)")
      ->type_name("FORMAT");
  app.add_option("--snapshot", options.snapshot, "read this internal snapshot instead of the current content")
      ->type_name("NAME");
  app.add_option("--allow-backing", options.allow_backing,
                 "also open backing and data files below DIR (default: below the image's own folder)")
      ->type_name("DIR")
      ->allow_extra_args(false);
  app.add_flag("--allow-data-file", options.allow_data_file, "open the external data file an image names");
  app.add_flag("-U,--force-share", options.force_share,
               "read an image that somebody else has locked; what is read may change meanwhile");
  app.add_option("--connections", options.connections, "at most N connections to a server")
      ->type_name("N")
      ->check(CLI::Range(1u, 256u));
}

CLI::Option* add_bytes(CLI::App& app, const std::string& names, std::uint64_t& value,
                       const std::string& help) {
  return app
      .add_option_function<std::string>(
          names,
          [&value, names](const std::string& given) {
            const auto parsed = parse_bytes(given);
            if (!parsed)
              throw CLI::ValidationError(names, "'" + given + "' is no byte amount: " + parsed.error().why());
            value = *parsed;
          },
          help)
      ->type_name("BYTES");
}

namespace {
std::optional<std::uint64_t> parse_milliseconds(std::string_view text) {
  constexpr std::uint64_t most = 3'600'000;
  std::uint64_t count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(parsed.ptr, text.data() + text.size());
  const std::uint64_t factor = unit == "s" ? 1000 : 1;
  if (parsed.ec != std::errc() || (unit != "s" && unit != "ms" && !unit.empty()) || count > most / factor)
    return std::nullopt;
  return count * factor;
}
}  // namespace

CLI::Option* add_milliseconds(CLI::App& app, const std::string& name, std::function<void(std::uint64_t)> take,
                              const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [take = std::move(take), name](const std::string& given) {
            const auto parsed = parse_milliseconds(given);
            if (!parsed)
              throw CLI::ValidationError(
                  name, "'" + given + "' is no time such as 300ms or 1s, of an hour at most");
            take(*parsed);
          },
          help)
      ->type_name("TIME");
}

Result<void> check_raw_name(const ImageUri& target, std::string_view command) {
  if (!target.is_file() || format_for_target(target) != "raw") return {};
  const std::string_view ending = ending_of_format(target.path());
  if (ending.empty()) return {};
  return unexpected(
      fail(ErrorKind::invalid_argument, std::string(command), target.to_string())
          .why(fmt::format("it would become a raw disk, and its name ends with '{}' as one of another format",
                           ending))
          .remedy("say -O raw or -O qcow2, or choose another name"));
}

void add_json_flag(CLI::App& app, bool& value) {
  app.add_flag("--json", value, "print one JSON document");
}

void add_progress_option(CLI::App& app, ProgressMode& mode) {
  add_choice(app, "--progress", mode, progress_modes, "MODE",
             "bar, json (one object a line), none, or auto: a bar on a terminal (default: auto)");
}

}  // namespace diskferry::cli
