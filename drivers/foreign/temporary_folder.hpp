// A folder of our own below the one for temporary files ($TMPDIR, else /tmp). Whoever makes it removes it.
#pragma once

#include "diskferry/error.hpp"

#include <string>

namespace diskferry::foreign {

/// Its path; nobody else may look into it. Errors: those of the system calls, naming TMPDIR.
Result<std::string> make_temporary_folder();

}  // namespace diskferry::foreign
