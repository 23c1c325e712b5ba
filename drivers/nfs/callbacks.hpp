// libnfs calls these, inside nfs_service() or while its context is destroyed. They note what happened and
// wake whoever waits; nothing is done to the context here.
#pragma once

#include "drivers/nfs/session.hpp"

#include <nfsc/libnfs.h>
#include <sys/stat.h>
#include <sys/time.h>
// After libnfs.h, on which they depend.
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>

namespace diskferry::nfs {

/// What nfs_get_fh() returns. The library's headers declare it only; it has this layout since NFSv4 came
/// (2.0). That it is so is checked when a file is opened.
struct FileHandle {
  int length;
  char* bytes;
};
/// Lifetime: the file's. Errors: unsupported, where this is not the layout.
Result<nfs_fh3> handle_of(nfsfh* file);

/// What a callback of the raw functions gets: owned by the library until it is called.
struct InFlight {
  std::shared_ptr<NfsSession> session;
  std::shared_ptr<Request> request;
};

/// A function of libnfs that somebody waits for.
struct NfsSession::Call {
  explicit Call(NfsSession& of) : session(of) {}
  NfsSession& session;  ///< outlives the callback: its context calls it, at the latest when it is destroyed
  std::mutex guard{};
  WaitQueue waiting{};
  bool is_done = false;
  int result = 0;
  std::string text{};
  nfs_stat_64 facts{};
  nfs_statvfs_64 space{};
};

struct Callbacks {
  static void read(rpc_context* rpc, int status, void* data, void* owned);
  static void write(rpc_context* rpc, int status, void* data, void* owned);
  static void commit(rpc_context* rpc, int status, void* data, void* owned);
  /// The server is there; `owned` is the session.
  static void null_answered(rpc_context* rpc, int status, void* data, void* owned);
  static void read_v4(int result, nfs_context* context, void* data, void* owned);
  /// Of those whose data is a text, or a file, or the facts of one.
  static void done(int result, nfs_context* context, void* data, void* owned);
  static void opened(int result, nfs_context* context, void* data, void* owned);
  static void looked(int result, nfs_context* context, void* data, void* owned);
  static void nothing(int result, nfs_context* context, void* data, void* owned);
  static void measured(int result, nfs_context* context, void* data, void* owned);
};

}  // namespace diskferry::nfs
