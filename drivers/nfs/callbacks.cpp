#include "drivers/nfs/callbacks.hpp"

#include "drivers/nfs/status.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace diskferry::nfs {
namespace {

std::unique_ptr<InFlight> taken(void* owned) {
  return std::unique_ptr<InFlight>(static_cast<InFlight*>(owned));
}

/// What was read is copied where somebody still waits for it. False: there is more than was asked for.
bool deliver(Request& request, const void* data, std::size_t bytes) {
  std::lock_guard lock(request.guard);
  if (request.is_abandoned) return true;
  if (bytes > request.into.size()) return false;
  if (bytes != 0) std::memcpy(request.into.data(), data, bytes);
  return true;
}

/// As a number, whatever the bytes mean to the server.
Verifier verifier_of(const writeverf3& raw) {
  Verifier verifier = 0;
  static_assert(sizeof verifier == sizeof raw);
  std::memcpy(&verifier, raw, sizeof verifier);
  return verifier;
}

/// The answer where there is none, or a refusal; nullptr: it is one that says yes.
template <class Reply>
const Reply* accepted(int status, const void* data, Answer& answer) {
  if (status != RPC_STATUS_SUCCESS || data == nullptr) return nullptr;
  const auto* const reply = static_cast<const Reply*>(data);
  answer.status = static_cast<int>(reply->status);
  answer.how = reply->status == NFS3_OK  ? Answer::How::done
               : is_later(answer.status) ? Answer::How::later
                                         : Answer::How::refused;
  return answer.how == Answer::How::done ? reply : nullptr;
}

/// `said`: libnfs's text.
void take_refusal(int error_number, const void* said, Answer& answer) {
  const char* const text = said == nullptr ? "" : static_cast<const char*>(said);
  switch (judge_v4(error_number, text)) {
    case Verdict::refused:
      answer.how = Answer::How::refused;
      answer.status = error_number;
      return;
    case Verdict::later:
      answer.how = Answer::How::later;
      answer.status = NFS3ERR_JUKEBOX;
      return;
    case Verdict::lost:
      answer.how = Answer::How::lost;
      return;
  }
}

}  // namespace

Result<nfs_fh3> handle_of(nfsfh* file) {
  const auto* const handle = reinterpret_cast<const FileHandle*>(nfs_get_fh(file));
  if (handle == nullptr || handle->length <= 0 || handle->length > NFS3_FHSIZE || handle->bytes == nullptr)
    return unexpected(fail(ErrorKind::unsupported, "use libnfs")
                          .why("its file handles have another form than those of its versions 4 and 5"));
  nfs_fh3 made{};
  made.data.data_len = static_cast<unsigned>(handle->length);
  made.data.data_val = handle->bytes;
  return made;
}

void Callbacks::read(rpc_context*, int status, void* data, void* owned) {
  const auto flight = taken(owned);
  Answer answer;
  if (const auto* const reply = accepted<READ3res>(status, data, answer)) {
    const READ3resok& read = reply->READ3res_u.resok;
    answer.bytes = std::min(read.count, static_cast<count3>(read.data.data_len));
    answer.is_end = read.eof != 0;
    if (!deliver(*flight->request, read.data.data_val, answer.bytes)) answer.how = Answer::How::lost;
  }
  flight->session->settle(*flight->request, answer);
}

void Callbacks::write(rpc_context*, int status, void* data, void* owned) {
  const auto flight = taken(owned);
  Answer answer;
  if (const auto* const reply = accepted<WRITE3res>(status, data, answer)) {
    const WRITE3resok& written = reply->WRITE3res_u.resok;
    answer.bytes = written.count;
    answer.is_durable = written.committed != UNSTABLE;
    answer.verifier = verifier_of(written.verf);
  }
  flight->session->settle(*flight->request, answer);
}

void Callbacks::commit(rpc_context*, int status, void* data, void* owned) {
  const auto flight = taken(owned);
  Answer answer;
  if (const auto* const reply = accepted<COMMIT3res>(status, data, answer))
    answer.verifier = verifier_of(reply->COMMIT3res_u.resok.verf);
  flight->session->settle(*flight->request, answer);
}

void Callbacks::null_answered(rpc_context*, int, void*, void* owned) {
  static_cast<NfsSession*>(owned)->is_null_in_flight_ = false;
}

void Callbacks::read_v4(int result, nfs_context*, void* data, void* owned) {
  const auto flight = taken(owned);
  Answer answer;
  if (result >= 0) {
    answer.how = Answer::How::done;
    answer.bytes = static_cast<std::uint32_t>(result);
    answer.is_end = answer.bytes == 0;
    if (!deliver(*flight->request, data, answer.bytes)) answer.how = Answer::How::lost;
  } else {
    take_refusal(-result, data, answer);
  }
  flight->session->settle(*flight->request, answer);
}

namespace {
template <class Take>
void finish(void* owned, int result, Take take) {
  const std::unique_ptr<std::shared_ptr<NfsSession::Call>> call(
      static_cast<std::shared_ptr<NfsSession::Call>*>(owned));
  std::lock_guard lock((*call)->guard);
  (*call)->result = result;
  take(**call);
  (*call)->is_done = true;
  (*call)->waiting.wake_all();
}
void take_text(NfsSession::Call& call, const void* data) {
  if (data != nullptr) call.text = static_cast<const char*>(data);
}
}  // namespace

void Callbacks::done(int result, nfs_context*, void* data, void* owned) {
  finish(owned, result, [&](NfsSession::Call& call) {
    if (result < 0) take_text(call, data);
  });
}

void Callbacks::opened(int result, nfs_context*, void* data, void* owned) {
  finish(owned, result, [&](NfsSession::Call& call) {
    if (result < 0) return take_text(call, data);
    // At once the session's, which closes it, whoever may have stopped waiting for it.
    call.session.file_ = static_cast<nfsfh*>(data);
  });
}

void Callbacks::looked(int result, nfs_context*, void* data, void* owned) {
  finish(owned, result, [&](NfsSession::Call& call) {
    if (result < 0) return take_text(call, data);
    call.facts = *static_cast<const nfs_stat_64*>(data);
  });
}

void Callbacks::nothing(int, nfs_context*, void*, void*) {}

void Callbacks::measured(int result, nfs_context*, void* data, void* owned) {
  finish(owned, result, [&](NfsSession::Call& call) {
    if (result < 0) return take_text(call, data);
    call.space = *static_cast<const nfs_statvfs_64*>(data);
  });
}

}  // namespace diskferry::nfs
