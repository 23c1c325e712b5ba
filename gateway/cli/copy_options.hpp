// The options of `copy` and `plan copy`, which take the same arguments.
#pragma once

#include "gateway/cli/options.hpp"
#include "gateway/copy/copy_job.hpp"

#include <string>

namespace CLI {
class App;
}

namespace diskferry::cli {

struct CopyOptions {
  SourceImageOptions source;
  std::string target;
  std::string target_format;
  bool no_create = false;
  bool overwrite = false;
  bool resume = false;
  bool no_verify = false;
  bool top = false;
  std::optional<VerifyLevel> verify{};
  std::string compress;  ///< "": not; "zlib" or "zstd"
  std::uint64_t cluster_bytes = 0;
  ImageCreateOptions::Preallocate preallocate = ImageCreateOptions::Preallocate::off;
  std::string backing;
  std::string backing_format;
  unsigned requests = 0;
  std::uint64_t request_bytes = 0;
  std::uint64_t bytes_per_s = 0;
  std::uint64_t checkpoint_bytes = 0;
  std::string source_faults;
  std::string target_faults;

  /// Errors: invalid_argument.
  Result<CopyRequest> request() const;
};

void add_copy_options(CLI::App& app, CopyOptions& options);

}  // namespace diskferry::cli
