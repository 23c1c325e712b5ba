// `diskferry copy`: the whole disk as a guest sees it, to another place.
#include "gateway/cli/command.hpp"
#include "gateway/cli/copy_options.hpp"
#include "gateway/cli/output.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <ostream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/App.hpp>

namespace diskferry::cli {
namespace {

struct Options {
  CopyOptions copy;
  ProgressMode progress = ProgressMode::automatic;
  std::string report_file;
  bool as_json = false;
};

/// The file of --report. A name that cannot be used is a refusal before anything is copied; the file itself
/// is made when the report is written.
class ReportFile {
 public:
  ReportFile() = default;
  ReportFile(const ReportFile&) = delete;
  ReportFile& operator=(const ReportFile&) = delete;
  ~ReportFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  /// Errors: those of opening; already_exists for a file that holds something else than a report.
  Result<void> check(const std::string& path) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY);
    // What may only be written to is a pipe or the like: nothing that could be lost.
    if (fd_ < 0 && errno == EACCES) fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd_ < 0 && errno == EISDIR)
      return unexpected(
          fail(ErrorKind::unsupported, "open the report", printable(path)).why("it is a folder"));
    if (fd_ < 0 && errno != ENOENT) return unexpected(errno_error(errno, "open the report", printable(path)));
    if (fd_ < 0) {
      const std::string folder = std::filesystem::path(path).parent_path().string();
      if (::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
        return unexpected(errno_error(errno, "create the report", printable(path)));
      return {};
    }
    struct stat status{};
    char first = '{';
    if (::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
        (::pread(fd_, &first, 1, 0) != 1 || first != '{'))
      return unexpected(fail(ErrorKind::already_exists, "open the report", printable(path))
                            .why("the file is there and holds no report")
                            .remedy("name another file"));
    return {};
  }

  Result<void> write(const CopyReport& report) {
    if (path_.empty()) return {};
    std::ostringstream text;
    print_json(text, to_json(report));
    if (fd_ < 0) fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd_ < 0) return unexpected(errno_error(errno, "create the report", printable(path_)));
    const std::string all = std::move(text).str();
    if (::ftruncate(fd_, 0) != 0 && errno != EINVAL)  // EINVAL: a pipe or the like
      return unexpected(errno_error(errno, "empty the report", printable(path_)));
    for (std::size_t done = 0; done < all.size();) {
      const ssize_t put = ::write(fd_, all.data() + done, all.size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return unexpected(errno_error(errno, "write the report", printable(path_)));
      done += static_cast<std::size_t>(put);
    }
    return {};
  }

 private:
  int fd_ = -1;
  std::string path_;
};

Result<ExitCode> run_copy(Invocation& invocation, const Options& options) {
  DISKFERRY_TRY(CopyRequest request, options.copy.request());
  ReportFile file;
  if (!options.report_file.empty()) DISKFERRY_CHECK(file.check(options.report_file));
  ProgressReporter progress(options.progress, invocation.runtime.context().clock,
                            ProgressOutput::standard_error());
  progress.start_ticking();
  CopyReport failed;
  auto report = invocation.runtime.run_until_signal(
      copy_image(invocation.runtime.context(), std::move(request), &progress, &failed));
  progress.finish();
  if (!report) {
    // The copy's own error is what matters, also where its report cannot be written.
    if (auto written = file.write(failed); !written)
      invocation.err << "diskferry: copy: " << printable(written.error().message()) << "\n";
    if (!failed.failure || !failed.failure->has_begun ||
        row_of(report.error().kind()).exit != ExitCode::refused)
      return unexpected(std::move(report).error());
    // What stops a copy that has begun is no refusal.
    invocation.err << "diskferry: copy: " << printable(report.error().message()) << "\n";
    return ExitCode::failed;
  }
  if (options.as_json) {
    print_json(invocation.out, to_json(*report));
  } else {
    invocation.out << to_text(*report);
  }
  if (auto written = file.write(*report); !written)
    return unexpected(std::move(written).error().remedy("the copy itself is complete"));
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
  app.add_option("--report", options->report_file,
                 "write the report to FILE, as JSON, whether the copy succeeds or fails")
      ->type_name("FILE");
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
