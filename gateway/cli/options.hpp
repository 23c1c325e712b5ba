// Options that several commands share, so that they are spelt, checked and explained the same everywhere.
#pragma once

#include "drivers/image/image.hpp"
#include "gateway/cli/progress.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/App.hpp>

namespace diskferry::cli {

/// An image that a command reads, as given on the command line.
struct SourceImageOptions {
  std::string name;
  std::string format;
  std::string snapshot;
  std::vector<std::string> allow_backing;
  bool allow_data_file = false;
  bool force_share = false;
  unsigned connections = 0;

  Result<ImageUri> uri() const { return ImageUri::parse(name); }
  ImageOpenOptions open_options() const;
};

/// Declares the image argument itself: `positional` is its name in the help ("IMAGE", "SOURCE").
CLI::Option* add_image_argument(CLI::App& app, std::string& name, const std::string& positional,
                                const std::string& help);
/// -f, --snapshot, --allow-backing, --allow-data-file, --force-share, --connections.
void add_source_options(CLI::App& app, SourceImageOptions& options);

/// A byte amount with K, M, G, T (powers of 1024); refused when the line is parsed.
CLI::Option* add_bytes(CLI::App& app, const std::string& names, std::uint64_t& value,
                       const std::string& help);

/// A time of an hour at most: "300ms", "1s", or a number of milliseconds. Refused when the line is parsed.
CLI::Option* add_milliseconds(CLI::App& app, const std::string& name, std::function<void(std::uint64_t)> take,
                              const std::string& help);

/// A raw disk under the name of another format would be taken for that format by whoever opens it.
/// Errors: invalid_argument.
Result<void> check_raw_name(const ImageUri& target, std::string_view command);

/// One of a list of words.
template <class Enum>
CLI::Option* add_choice(CLI::App& app, const std::string& names, Enum& value,
                        const std::map<std::string, Enum>& words, const std::string& type,
                        const std::string& help) {
  return app
      .add_option_function<std::string>(
          names,
          [&value, words, names](const std::string& given) {
            if (const auto found = words.find(given); found != words.end()) {
              value = found->second;
              return;
            }
            std::string known;
            for (const auto& [word, meaning] : words) known += (known.empty() ? "" : ", ") + word;
            throw CLI::ValidationError(names, "'" + given + "' is not one of " + known);
          },
          help)
      ->type_name(type);
}

/// --json
void add_json_flag(CLI::App& app, bool& value);
/// --progress auto|bar|json|none
void add_progress_option(CLI::App& app, ProgressMode& mode);

}  // namespace diskferry::cli
