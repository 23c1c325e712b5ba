// What qemu-nbd said on stderr, as an Error. Pure. The text is partly the image's (names of extents), so it
// is shortened, escaped and searched for known phrases only, and these are looked for where QEMU speaks and
// not where it quotes a name.
#pragma once

#include "diskferry/error.hpp"

#include <string>
#include <string_view>

namespace diskferry::foreign {

/// The last line that says something, without "qemu-nbd: Failed to blk_new_open '...': ", escaped and at most
/// 400 bytes long; empty: nothing was said.
std::string last_words(std::string_view said);

struct Death {
  int wait_status = 0;         ///< as waitpid() tells it
  bool was_open = false;       ///< it had opened the image before
  std::string_view said = {};  ///< stderr
  std::string_view path = {};  ///< the file it was told to open; empty: something else (a server)
};
/// Why the child is no more. `object`: the image. Kinds: not_found, permission, in_use, corrupt, unsupported,
/// gone (a server that does not answer), io (a crash).
Error error_of(const Death& death, std::string object);

}  // namespace diskferry::foreign
