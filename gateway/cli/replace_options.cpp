#include "gateway/cli/replace_options.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"
#include "drivers/support/wall_clock.hpp"
#include "gateway/cli/gateway_options.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/time_ahead.hpp"

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
    if (format.empty()) DISKFERRY_CHECK(check_raw_name(target, "replace"));
    // The gateway's folder is another one than ours.
    request.disks.push_back(
        {.name = pairs[i],
         .uri = target.is_file() ? std::filesystem::absolute(target.path()).string() : pairs[i + 1],
         .format = format,
         .secret = secret});
  }
  request.bytes_per_s = rate.value_or(0);
  if (!commit_at.empty()) {
    DISKFERRY_TRY(request.commit_at_ms, parse_time_ahead(commit_at, now_ms()));
  }
  if (!on_read_error.empty()) {
    DISKFERRY_TRY(request.on_read_error, on_read_error_named(on_read_error));
  }
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
  add_milliseconds(
      app, "--max-pause", [&request](std::uint64_t ms) { request.max_pause_ms = ms; },
      "how long guests' writes may be held (default: 100ms)");
  add_milliseconds(
      app, "--max-write-latency", [&request](std::uint64_t ms) { request.max_write_latency_ms = ms; },
      "how long a guest's write may wait for the target (default: 10ms)");
  app.add_option("--deadline", request.deadline_s,
                 "have the targets in step within so many seconds, and slow clients down where that needs it")
      ->type_name("SECONDS");
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
  auto* const by_hand =
      app.add_flag("--commit-by-hand", request.commit_by_hand,
                   "stay in step until 'diskferry commit JOB', instead of changing places at once");
  app.add_option("--commit-at", options.commit_at,
                 "stay in step until then: +30m, 22:30, 2026-11-28T22:30 or with a zone")
      ->type_name("TIME")
      ->excludes(by_hand);
  app.add_option("--on-read-error", options.on_read_error,
                 "where the old storage cannot be read: stop (pause, and tell where; the default), skip "
                 "(zeros there, listed) or abort (undo the job)")
      ->type_name("WHAT");
  app.add_option("--retain", request.retain_s,
                 "keep the old storage in step for so many seconds, for 'diskferry fallback JOB'")
      ->type_name("SECONDS");
  app.add_flag("--remove-source", request.remove_source, "remove the old storage when it is let go");
  auto* const rehome = app.add_flag("--rehome", request.rehome,
                                    "have QEMU open the target itself, so that the machine's disk is on no "
                                    "export any more");
  app.add_option("--secret", options.secret,
                 "with --rehome: UUID of libvirt's secret with the key of a target whose URI names a user")
      ->type_name("UUID")
      ->needs(rehome);
}

}  // namespace diskferry::cli
