#include "drivers/foreign/last_words.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <sys/wait.h>

namespace diskferry::foreign {
namespace {

constexpr std::size_t words_bytes_max = 400;

struct Phrase {
  std::string_view text;
  ErrorKind kind;
  std::string_view remedy;
};
constexpr std::string_view trust_it =
    "files that an image names are read below its own folder only, and as their modes allow; name a further "
    "folder with --allow-backing if you trust the image";
constexpr std::string_view only_files_below =
    "an image may refer to files below its own folder, and to nothing else";
constexpr std::string_view fetch_all_of_it =
    "an image on a server is one file, and no other is opened for it; fetch all of them and copy from these";
constexpr std::string_view check_rights =
    "check its owner and mode, and those of the folders above it (on NFS everybody has to be allowed to read "
    "it)";
constexpr std::string_view check_user = "check what the server lets this user read";
constexpr std::string_view install_modules = "install the package qemu-block-extra";
constexpr std::string_view check_server = "check the address and that the server runs";
constexpr std::string_view check_host_key =
    "compare the server's key with what its operator says, then put it into known_hosts (or name the file "
    "with known-hosts=, or the key with host-key=)";
/// Stands for what remedy_of_refusal() says.
constexpr std::string_view by_what_was_refused = "?";
/// In the order of how much they tell; what QEMU 7.2, curl 7.88 and libssh 0.10 say.
constexpr std::array phrases{
    Phrase{"Unknown protocol", ErrorKind::unsupported, install_modules},
    Phrase{"Unknown driver", ErrorKind::unsupported, install_modules},
    Phrase{"Failed to get", ErrorKind::in_use,
           "stop what writes to it, or read it as it is with --force-share"},
    Phrase{"Server does not support", ErrorKind::unsupported,
           "the server has to send parts of files (Accept-Ranges: bytes); fetch the file as a whole and copy "
           "from that"},
    Phrase{"didn't report file size", ErrorKind::unsupported, "fetch the file and copy from that"},
    Phrase{"returned error: 404", ErrorKind::not_found, "check the path"},
    Phrase{"returned error: 410", ErrorKind::not_found, "check the path"},
    Phrase{"returned error: 401", ErrorKind::permission, "name user@ and password-file="},
    Phrase{"returned error: 403", ErrorKind::permission, check_user},
    Phrase{"certificate", ErrorKind::permission,
           "name the authority that signed the server's certificate with ca-file="},
    Phrase{"SSL:", ErrorKind::permission, "the certificate must be for the host that is named"},
    Phrase{"Couldn't resolve host", ErrorKind::gone, check_server},
    Phrase{"Could not resolve host", ErrorKind::gone, check_server},
    Phrase{"Failed to resolve hostname", ErrorKind::gone, check_server},
    Phrase{"Failed to connect to", ErrorKind::gone, check_server},
    Phrase{"Connection refused", ErrorKind::gone, check_server},
    Phrase{"timed out", ErrorKind::gone, check_server},
    Phrase{"key fingerprint", ErrorKind::permission, check_host_key},
    Phrase{"does not match host_key_check", ErrorKind::permission, check_host_key},
    Phrase{"host key", ErrorKind::permission, check_host_key},
    Phrase{"authenticat", ErrorKind::permission,
           "name a key that the server knows with identity=; one with a passphrase works through the agent "
           "only (agent=true)"},
    Phrase{"No such file", ErrorKind::not_found, ""},
    Phrase{"Permission denied", ErrorKind::permission, by_what_was_refused},
    Phrase{"Operation not permitted", ErrorKind::permission, by_what_was_refused},
    Phrase{"not support", ErrorKind::unsupported, ""},
    Phrase{"nsupported", ErrorKind::unsupported, ""},
    Phrase{"CURL: Error", ErrorKind::gone, check_server},
    Phrase{"Cannot allocate memory", ErrorKind::too_large, "the image needs more memory than it may take"},
};

/// Without "qemu-nbd: Failed to blk_new_open '...': ".
std::string_view message_of(std::string_view said) {
  while (!said.empty() && (said.back() == '\n' || said.back() == '\r' || said.back() == ' '))
    said.remove_suffix(1);
  // The last message: what follows it is advice ("Is another process using the image?").
  if (const auto line = said.rfind("qemu-nbd: "); line != std::string_view::npos) {
    said.remove_prefix(line);
    said = said.substr(0, said.find('\n'));
  } else if (const auto last = said.rfind('\n'); last != std::string_view::npos) {
    said.remove_prefix(last + 1);
  }
  constexpr std::string_view opening = "Failed to blk_new_open '";
  if (const auto name = said.find(opening); name != std::string_view::npos) {
    // The options between the quotes may hold anything, also quotes. What QEMU adds comes last.
    if (const auto end = said.find("': ", name + opening.size()); end != std::string_view::npos)
      said.remove_prefix(end + 3);
  } else if (said.starts_with("qemu-nbd: ")) {
    said.remove_prefix(10);
  }
  return said;
}

struct Reason {
  std::string_view text = {};
  std::string_view file = {};  ///< that could not be opened; empty: it does not say
};
/// Names stand in quotes and may hold anything, also what looks like a reason: that comes behind the last
/// one, or in front of the first.
Reason reason_of(std::string_view message) {
  constexpr std::string_view opening = "Could not open '";
  constexpr std::string_view closing = "': ";
  Reason reason{.text = message};
  if (const auto end = message.rfind(closing); end != std::string_view::npos) {
    reason.text.remove_prefix(end + closing.size());
    const auto found = message.find(opening);
    const auto begin = found == std::string_view::npos ? end : found + opening.size();
    if (begin < end) reason.file = message.substr(begin, end - begin);
  }
  reason.text = reason.text.substr(0, reason.text.find(" '"));
  return reason;
}

std::string_view remedy_of_refusal(const Death& death, std::string_view file) {
  if (file.empty()) return death.path.empty() ? check_user : only_files_below;
  if (file == death.path) return check_rights;
  return death.path.empty() ? fetch_all_of_it : trust_it;
}

}  // namespace

std::string last_words(std::string_view said) {
  return printable(message_of(said).substr(0, words_bytes_max));
}

Error error_of(const Death& death, std::string object) {
  const std::string words = last_words(death.said);
  if (WIFSIGNALED(death.wait_status)) {
    Error error = fail(ErrorKind::io, "read", std::move(object))
                      .why(fmt::format("qemu-nbd was ended by signal {}{}{}", WTERMSIG(death.wait_status),
                                       words.empty() ? "" : ": ", words));
    return std::move(error).remedy("the image may be damaged; check it with qemu-img check");
  }
  const std::string operation = death.was_open ? "read" : "open";
  const Reason reason = reason_of(message_of(death.said));
  const auto phrase = std::ranges::find_if(
      phrases, [&](const Phrase& one) { return reason.text.find(one.text) != std::string_view::npos; });
  const ErrorKind otherwise = death.was_open ? ErrorKind::io : ErrorKind::corrupt;
  Error error = fail(phrase == phrases.end() ? otherwise : phrase->kind, operation, std::move(object))
                    .why(words.empty() ? fmt::format("qemu-nbd ended with status {} and said nothing",
                                                     WEXITSTATUS(death.wait_status))
                                       : "QEMU says: " + words);
  if (phrase == phrases.end() || phrase->remedy.empty()) return error;
  const bool is_refusal = phrase->remedy == by_what_was_refused;
  return std::move(error).remedy(
      std::string(is_refusal ? remedy_of_refusal(death, reason.file) : phrase->remedy));
}

}  // namespace diskferry::foreign
