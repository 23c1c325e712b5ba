// `diskferry copy`: the whole disk as a guest sees it, to another place.
#include "gateway/cli/command.hpp"
#include "gateway/cli/copy_options.hpp"
#include "gateway/cli/output.hpp"

#include <atomic>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <ostream>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  CopyOptions copy;
  ProgressMode progress = ProgressMode::automatic;
  std::string report_file;
  bool as_json = false;
};

Result<void> write_report(const std::string& path, const CopyReport& report) {
  std::ofstream file(path, std::ios::trunc);
  print_json(file, to_json(report));
  file.flush();
  if (!file)
    return unexpected(
        fail(ErrorKind::io, "write the report", printable(path)).why("the copy itself is complete"));
  return {};
}

/// Notes whether anything was copied: what stops a copy after that is no refusal.
class CopyBegun final : public ProgressSink {
 public:
  explicit CopyBegun(ProgressSink& next) : next_(next) {}
  void update(const ProgressUpdate& now) override {
    if (now.phase == "copy") has_begun_ = true;
    next_.update(now);
  }
  bool has_begun() const { return has_begun_; }

 private:
  ProgressSink& next_;
  std::atomic<bool> has_begun_ = false;
};

Result<ExitCode> run_copy(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(CopyRequest request, options.copy.request());
  ProgressReporter progress(options.progress, invocation.runtime.context().clock,
                            ProgressOutput::standard_error());
  progress.start_ticking();
  CopyBegun begun(progress);
  auto report = invocation.runtime.run_until_signal(
      copy_image(invocation.runtime.context(), std::move(request), &begun));
  progress.finish();
  if (!report && begun.has_begun() && row_of(report.error().kind()).exit == ExitCode::refused) {
    invocation.err << "diskferry: copy: " << printable(report.error().message()) << "\n";
    return ExitCode::failed;
  }
  if (!report) return unexpected(std::move(report).error());
  if (options.as_json) {
    print_json(invocation.out, to_json(*report));
  } else {
    invocation.out << to_text(*report);
  }
  if (!options.report_file.empty()) DISKFERRY_CHECK(write_report(options.report_file, *report));
  if (report->is_good()) return ExitCode::done;
  invocation.err << fmt::format(
      "diskferry: copy: {}: was changed while it was copied; the copy mixes old and new content: copy again "
      "while "
      "nobody writes to the source\n",
      report->changed_layers);
  return ExitCode::failed;
}

CommandBody declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_copy_options(app, options->copy);
  add_progress_option(app, options->progress);
  app.add_option("--report", options->report_file, "write the report to FILE, as JSON")->type_name("FILE");
  add_json_flag(app, options->as_json);
  return [options](Invocation& invocation) { return run_copy(invocation, *options); };
}

}  // namespace

extern const Command copy_command;
const Command copy_command{.name = "copy",
                           .summary = "copy the disk a guest sees: chain flattened, sparse kept, verified",
                           .examples =
                               "  diskferry copy vm.qcow2 vm.raw\n"
                               "  diskferry copy --compress=zstd vm.raw vm.qcow2\n"
                               "  diskferry copy -n vm.qcow2 nbd://host/export\n"
                               "  diskferry copy --resume vm.qcow2 vm.raw",
                           .declare = &declare};

}  // namespace diskferry::cli
