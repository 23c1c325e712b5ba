// Which files an image may refer to. Names in an image's header are hostile: a guest, or whoever uploaded the
// image, may have written them. Only files below the image's own folder and the folders the operator allowed
// are opened, whatever symbolic links and ".." a name goes through.
#pragma once

#include "diskferry/image_uri.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// A file that an image may refer to.
struct AllowedFile {
  ImageUri uri;           ///< as it is named; what it refers to in turn is relative to this
  std::string real_path;  ///< what was checked, and what alone may be opened
};

class AllowedFolders {
 public:
  /// `image`: the top of the chain; `further`: the operator's. A folder that does not exist allows nothing.
  /// The own folder allows no devices, and nothing when it is /dev or /: it is everybody's then.
  AllowedFolders(const ImageUri& image, const std::vector<std::string>& further);

  /// The file that the image `referring` means by `name`: a path, taken relative to that image's folder as
  /// QEMU does. `what` is for messages ("backing image"). Errors: permission (outside the folders),
  /// unsupported (a protocol or json: name), not_found, invalid_argument.
  Result<AllowedFile> resolve(const ImageUri& referring, std::string_view name, std::string_view what) const;

  /// All of them, as real paths.
  std::vector<std::string> folders() const;

 private:
  bool allows(const std::string& real_path) const;
  bool allows_device(const std::string& path) const;
  // Real paths.
  std::vector<std::string> own_;
  std::vector<std::string> further_;
};

}  // namespace diskferry
