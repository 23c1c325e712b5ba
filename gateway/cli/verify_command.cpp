// `diskferry verify`: do two images show a guest the same disk?
#include "diskferry/units.hpp"
#include "gateway/cli/command.hpp"
#include "gateway/cli/options.hpp"
#include "gateway/cli/output.hpp"
#include "gateway/copy/compare.hpp"

#include <fmt/format.h>
#include <memory>
#include <ostream>

#include <CLI/App.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/json/object.hpp>

namespace diskferry::cli {
namespace asio = boost::asio;
namespace json = boost::json;
namespace {

struct Options {
  SourceImageOptions a;
  std::string b;
  std::string b_format;
  ProgressMode progress = ProgressMode::automatic;
  bool strict = false;
  bool as_json = false;
};

Task<Result<Comparison>> compare_images(DriverContext& context, const Options& options,
                                        ProgressSink* progress) {
  DISKFERRY_CO_TRY(auto a_uri, options.a.uri());
  DISKFERRY_CO_TRY(auto b_uri, ImageUri::parse(options.b));
  ImageOpenOptions b_options = options.a.open_options();
  b_options.format = options.b_format;
  b_options.snapshot.clear();
  DISKFERRY_CO_TRY(auto a, co_await open_image(context, a_uri, options.a.open_options()));
  auto b = co_await open_image(context, b_uri, std::move(b_options));
  if (!b) {
    (void)co_await a.close();
    co_return unexpected(std::move(b).error());
  }
  auto result = co_await compare(context, a.device(), b->device(), {.strict_size = options.strict}, progress);
  co_await asio::this_coro::reset_cancellation_state(asio::disable_cancellation());
  (void)co_await b->close();
  (void)co_await a.close();
  co_return result;
}

/// For JSON: without secrets, and otherwise as given.
std::string shown(const std::string& name) {
  const auto uri = ImageUri::parse(name);
  return uri ? uri->without_secrets() : std::string();
}

void print(Invocation& invocation, const Options& options, const Comparison& result) {
  if (options.as_json) {
    print_json(invocation.out, json::object{{"a", shown(options.a.name)},
                                            {"b", shown(options.b)},
                                            {"same", result.is_same},
                                            {"first-difference", result.first_difference
                                                                     ? json::value(*result.first_difference)
                                                                     : json::value(nullptr)},
                                            {"a-virtual-size", result.a_bytes},
                                            {"b-virtual-size", result.b_bytes},
                                            {"compared", result.compared_bytes},
                                            {"skipped", result.skipped_bytes}});
    return;
  }
  if (!result.is_same) {
    invocation.out << fmt::format("different: first at offset {}\n", *result.first_difference);
  } else {
    invocation.out << fmt::format(
        "the same: {} compared, {} zeros on both sides{}\n", format_bytes(result.compared_bytes),
        format_bytes(result.skipped_bytes),
        result.a_bytes == result.b_bytes ? "" : " (sizes differ, the rest is zeros)");
  }
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_image_argument(app, options->a.name, "A", "an image");
  add_image_argument(app, options->b, "B", "another one");
  add_source_options(app, options->a);
  app.add_option("-F,--other-format", options->b_format, "format of B (default: found out)")
      ->type_name("FORMAT");
  app.add_flag("--strict", options->strict, "another size is a difference, even when the rest is zeros");
  add_json_flag(app, options->as_json);
  add_progress_option(app, options->progress);
  return [options](Invocation& invocation) -> Result<ExitCode> {
    ProgressReporter progress(options->progress, invocation.runtime.context().clock,
                              ProgressOutput::standard_error());
    progress.start_ticking();
    auto result = invocation.runtime.run_until_signal(
        compare_images(invocation.runtime.context(), *options, &progress));
    progress.finish();
    if (!result) return unexpected(std::move(result).error());
    print(invocation, *options, *result);
    return result->is_same ? ExitCode::done : ExitCode::different;
  };
}

}  // namespace

extern const Command verify_command;
const Command verify_command{
    .name = "verify",
    .summary = "compare what a guest would see of two images; names the first offset that differs",
    .examples =
        "  diskferry verify vm.qcow2 vm.raw\n"
        "  diskferry verify --json vm.qcow2 nbd://host/export",
    .declare = &declare};

}  // namespace diskferry::cli
