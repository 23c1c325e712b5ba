#include "gateway/cli/replace_options.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "gateway/cli/gateway_options.hpp"

#include <filesystem>

#include <CLI/App.hpp>
#include <CLI/Option.hpp>
#include <CLI/Validators.hpp>

namespace diskferry::cli {

Result<ReplaceRequest> ReplaceOptions::request() const {
  ReplaceRequest request = limits;
  if (pairs.size() % 2 != 0)
    return unexpected(fail(ErrorKind::invalid_argument, "replace")
                          .why("each export needs a target")
                          .remedy("say diskferry replace EXPORT TARGET, and further pairs after that"));
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    DISKFERRY_TRY(const ImageUri target, ImageUri::parse(pairs[i + 1]));
    // The gateway's folder is another one than ours.
    request.disks.push_back(
        {.name = pairs[i],
         .uri = target.is_file() ? std::filesystem::absolute(target.path()).string() : pairs[i + 1],
         .format = format});
  }
  request.bytes_per_s = rate.value_or(0);
  DISKFERRY_CHECK(check(request));
  return request;
}

namespace {
void declare_limits(CLI::App& app, ReplaceOptions& options) {
  ReplaceRequest& request = options.limits;
  app.add_option_function<std::string>(
         "--rate",
         [&options](const std::string& text) {
           const auto parsed = parse_bytes(text);
           if (!parsed) throw CLI::ValidationError("--rate", parsed.error().message());
           options.rate = *parsed;
         },
         "bytes a second towards the targets, all together")
      ->type_name("BYTES");
  app.add_option("--max-pause", request.max_pause_ms, "milliseconds that guests' writes may be held (100)")
      ->type_name("MS");
  app.add_option("--max-write-latency", request.max_write_latency_ms,
                 "milliseconds that a guest's write may wait for the target (10)")
      ->type_name("MS");
  app.add_option("--connections", request.connections, "connections to the target, each disk")
      ->type_name("N")
      ->check(CLI::Range(1, 16));
}

}  // namespace

void add_replace_options(CLI::App& app, ReplaceOptions& options) {
  ReplaceRequest& request = options.limits;
  add_gateway_option(app, options.gateway);
  app.add_option("EXPORT TARGET", options.pairs,
                 "an export of the gateway, and where its storage goes; further pairs")
      ->required()
      ->type_name("");
  app.add_option("-O,--target-format", options.format, "raw or qcow2 (default: by the target's name)")
      ->type_name("FORMAT");
  app.add_flag("--overwrite", request.overwrite, "use a target that is there already");
  declare_limits(app, options);
  app.add_flag("--commit-by-hand", request.commit_by_hand,
               "stay in step until 'diskferry commit JOB', instead of changing places at once");
  app.add_option("--retain", request.retain_s,
                 "keep the old storage in step for so many seconds, for 'diskferry fallback JOB'")
      ->type_name("SECONDS");
  app.add_flag("--remove-source", request.remove_source, "remove the old storage when it is let go");
}

}  // namespace diskferry::cli
