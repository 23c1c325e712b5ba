// Comparison of real paths. Opens nothing.
#include "drivers/image/allowed_folders.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <optional>

namespace diskferry {
namespace {
namespace fs = std::filesystem;

std::optional<std::string> real_path(const fs::path& path) {
  std::error_code failed;
  auto found = fs::canonical(path, failed);
  if (failed) return std::nullopt;
  return found.string();
}

bool is_below(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

fs::path folder_of(const ImageUri& image) {
  const fs::path folder = fs::path(image.path()).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

/// What QEMU takes for "protocol:rest": a colon before any slash.
bool has_protocol(std::string_view name) {
  return name.find(':') < name.find('/');
}

}  // namespace

AllowedFolders::AllowedFolders(const ImageUri& image, const std::vector<std::string>& further) {
  const auto add_own = [this](const fs::path& folder) {
    if (auto real = real_path(folder); real && *real != "/dev" && *real != "/")
      own_.push_back(*std::move(real));
  };
  if (image.is_file()) {
    add_own(folder_of(image));
    if (const auto real = real_path(image.path())) add_own(fs::path(*real).parent_path());
  }
  for (const std::string& folder : further) {
    if (auto real = real_path(folder)) further_.push_back(*std::move(real));
  }
}

std::vector<std::string> AllowedFolders::folders() const {
  std::vector<std::string> all = own_;
  all.insert(all.end(), further_.begin(), further_.end());
  return all;
}

bool AllowedFolders::allows(const std::string& real_path) const {
  const auto holds = [&](const std::string& folder) { return is_below(real_path, folder); };
  if (std::ranges::any_of(further_, holds)) return true;
  std::error_code failed;
  const auto kind = fs::status(real_path, failed).type();
  const bool is_device = kind == fs::file_type::block || kind == fs::file_type::character;
  return !is_device && std::ranges::any_of(own_, holds);
}

/// /dev/vg/lv is a link to /dev/dm-N: a name of a block device in a folder that the operator allowed is good
/// by itself, for nobody but root makes links there.
bool AllowedFolders::allows_device(const std::string& path) const {
  std::error_code failed;
  if (!fs::is_block_file(path, failed)) return false;
  const auto folder = real_path(fs::path(path).parent_path());
  return folder && (*folder == "/dev" || is_below(*folder, "/dev")) &&
         std::ranges::any_of(further_, [&](const std::string& allowed) {
           return *folder == allowed || is_below(*folder, allowed);
         });
}

Result<AllowedFile> AllowedFolders::resolve(const ImageUri& referring, std::string_view name,
                                            std::string_view what) const {
  const auto refuse = [&](ErrorKind kind, std::string why) {
    return fail(kind, fmt::format("open {}", what), printable(name)).why(std::move(why));
  };
  std::string_view path = name;
  if (path.starts_with("file:")) path.remove_prefix(path.starts_with("file:///") ? 7 : 5);
  if (has_protocol(path))
    return unexpected(refuse(ErrorKind::unsupported, "only names of local files are followed")
                          .remedy("copy it to a file beside the image, or flatten the image where it is"));
  if (path.empty()) return unexpected(refuse(ErrorKind::invalid_argument, "the name is empty"));
  if (!referring.is_file() && !path.starts_with('/'))
    return unexpected(
        refuse(ErrorKind::unsupported, "a relative name means nothing for an image that is no file"));
  const fs::path joined = path.starts_with('/') ? fs::path(path) : folder_of(referring) / fs::path(path);
  std::error_code failed;
  const fs::path real = fs::canonical(joined, failed);
  const std::string remedy =
      fmt::format("name its folder with --allow-backing if you trust {}", referring.to_string());
  if (failed) {
    // Whether something exists outside the folders is nobody's business.
    const auto folder = real_path(joined.parent_path());
    if (!folder || !allows(*folder + "/x"))
      return unexpected(refuse(ErrorKind::permission, "it lies outside the folders that images may refer to")
                            .remedy(remedy));
    return unexpected(refuse(failed == std::errc::no_such_file_or_directory ? ErrorKind::not_found
                                                                            : kind_of_errno(failed.value()),
                             fmt::format("{} names it", referring.to_string()))
                          .cause(failed));
  }
  if (!allows(real.string()) && !allows_device(joined.string()))
    return unexpected(
        refuse(ErrorKind::permission, "it lies outside the folders that images may refer to").remedy(remedy));
  return AllowedFile{ImageUri::from_path(joined.string()), real.string()};
}

}  // namespace diskferry
