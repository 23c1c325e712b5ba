#include "drivers/foreign/temporary_folder.hpp"

#include "diskferry/image_uri.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace diskferry::foreign {

Result<std::string> make_temporary_folder() {
  std::error_code failed;
  const std::filesystem::path below = std::filesystem::temp_directory_path(failed);
  if (failed)
    return unexpected(errno_error(failed.value(), "find the folder for temporary files")
                          .remedy("name one that is there in the environment's TMPDIR"));
  std::string path = (below / "diskferry-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr)
    return unexpected(errno_error(errno, "make a folder below", printable(below.string()))
                          .remedy("name another one in the environment's TMPDIR"));
  return path;
}

}  // namespace diskferry::foreign
