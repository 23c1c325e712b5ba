#include "drivers/nfs/status.hpp"

#include "diskferry/image_uri.hpp"

#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <sys/stat.h>
#include <sys/time.h>

namespace diskferry::nfs {
namespace {

struct Row {
  int status;
  ErrorKind kind;
  std::string_view text;
  std::string_view remedy = {};
};
constexpr std::string_view ids_remedy =
    "check the owner of the file against the keys uid and gid, and root_squash";
constexpr std::string_view space_remedy = "free space there, then run again with --resume";
constexpr std::array rows{
    Row{NFS3ERR_PERM, ErrorKind::permission, "the server refuses it", ids_remedy},
    Row{NFS3ERR_NOENT, ErrorKind::not_found, "there is no such file"},
    Row{NFS3ERR_IO, ErrorKind::io, "the server has an input/output error"},
    Row{NFS3ERR_NXIO, ErrorKind::io, "the server has no such device"},
    Row{NFS3ERR_ACCES, ErrorKind::permission, "the server refuses it", ids_remedy},
    Row{NFS3ERR_EXIST, ErrorKind::already_exists, "the file exists"},
    Row{NFS3ERR_NOTDIR, ErrorKind::not_found, "a part of the path is no folder"},
    Row{NFS3ERR_ISDIR, ErrorKind::invalid_argument, "it is a folder"},
    Row{NFS3ERR_INVAL, ErrorKind::invalid_argument, "the server finds the request invalid"},
    Row{NFS3ERR_FBIG, ErrorKind::no_space, "the file is larger than the server's file system allows"},
    Row{NFS3ERR_NOSPC, ErrorKind::no_space, "the server's file system is full", space_remedy},
    Row{NFS3ERR_ROFS, ErrorKind::read_only, "the export is read-only",
        "export it for reading and writing at the server"},
    Row{NFS3ERR_NAMETOOLONG, ErrorKind::too_large, "the name is too long for the server"},
    Row{NFS3ERR_DQUOT, ErrorKind::no_space, "the quota on the server is used up", space_remedy},
    Row{NFS3ERR_STALE, ErrorKind::gone, "the file was removed or replaced at the server (stale handle)",
        "check which file is there, then start again"},
    Row{NFS3ERR_BADHANDLE, ErrorKind::protocol, "the server does not know its own file handle"},
    Row{NFS3ERR_NOTSUPP, ErrorKind::unsupported, "the server does not support it"},
    Row{NFS3ERR_SERVERFAULT, ErrorKind::io, "the server failed"},
    Row{NFS3ERR_JUKEBOX, ErrorKind::io, "the server asks again and again to come later"},
};

struct NumberRow {
  int number;
  int status;
};
/// libnfs's error numbers, back to what the server meant.
constexpr std::array numbers{NumberRow{EPERM, NFS3ERR_PERM},   NumberRow{ENOENT, NFS3ERR_NOENT},
                             NumberRow{EIO, NFS3ERR_IO},       NumberRow{EACCES, NFS3ERR_ACCES},
                             NumberRow{EEXIST, NFS3ERR_EXIST}, NumberRow{ENOTDIR, NFS3ERR_NOTDIR},
                             NumberRow{EISDIR, NFS3ERR_ISDIR}, NumberRow{EINVAL, NFS3ERR_INVAL},
                             NumberRow{EFBIG, NFS3ERR_FBIG},   NumberRow{ENOSPC, NFS3ERR_NOSPC},
                             NumberRow{EROFS, NFS3ERR_ROFS},   NumberRow{ENAMETOOLONG, NFS3ERR_NAMETOOLONG},
                             NumberRow{ESTALE, NFS3ERR_STALE}};

struct NameRow {
  std::string_view name;
  Verdict verdict;
};
/// RFC 7530, 13.1. libnfs renews no lease: a server forgets a client that asks for nothing for 90 s or so.
constexpr std::array names{
    NameRow{"NFS4ERR_DELAY", Verdict::later},      NameRow{"NFS4ERR_GRACE", Verdict::later},
    NameRow{"NFS4ERR_EXPIRED", Verdict::lost},     NameRow{"NFS4ERR_STALE_STATEID", Verdict::lost},
    NameRow{"NFS4ERR_BAD_STATEID", Verdict::lost}, NameRow{"NFS4ERR_STALE_CLIENTID", Verdict::lost}};

}  // namespace

bool is_later(int status) noexcept {
  return status == NFS3ERR_JUKEBOX;
}

Verdict judge_v4(int error_number, std::string_view said) noexcept {
  // Its words for a connection that ended, and for an answer that is none.
  if (error_number == EINTR || error_number == ECANCELED || error_number == EFAULT) return Verdict::lost;
  // One number stands for many errors, so that only the text tells. In front of the name a path may stand.
  if (const auto at = said.rfind("NFS4ERR_"); at != std::string_view::npos) {
    said.remove_prefix(at);
    if (const auto end = said.find('('); end != std::string_view::npos) said.remove_suffix(said.size() - end);
    for (const NameRow& row : names)
      if (row.name == said) return row.verdict;
  }
  return error_number == EAGAIN ? Verdict::later : Verdict::refused;
}

Error status_error(int status, std::string operation, const std::string& name) {
  for (const Row& row : rows) {
    if (row.status != status) continue;
    Error error = fail(row.kind, std::move(operation), name).why(std::string(row.text));
    return row.remedy.empty() ? error : std::move(error).remedy(std::string(row.remedy));
  }
  return fail(ErrorKind::io, std::move(operation), name).why(fmt::format("the server answers {}", status));
}

Error library_error(int error_number, std::string operation, const std::string& name, std::string said) {
  for (const NumberRow& row : numbers) {
    if (row.number != error_number) continue;
    if (error_number == EIO && !said.empty()) break;  // also what libnfs says where it did not get through
    return status_error(row.status, std::move(operation), name);
  }
  return fail(ErrorKind::gone, std::move(operation), name)
      .why(said.empty() ? fmt::format("libnfs gives error {}", error_number) : printable(said));
}

}  // namespace diskferry::nfs
