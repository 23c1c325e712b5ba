// libiscsi calls these, inside iscsi_service() or while its context is destroyed. They note what happened and
// wake whoever waits; nothing is done to the context here.
#pragma once

#include "drivers/iscsi/session.hpp"

// In this order: the second depends on the first.
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

namespace diskferry::iscsi {

struct Callbacks {
  /// Of a command; `owned` is its request.
  static void answered(iscsi_context*, int status, void*, void* owned) {
    auto& request = *static_cast<Request*>(owned);
    request.session->take_answer(request, status);
  }
  /// Of connecting, logging in and out; `owned` is the session.
  static void stepped(iscsi_context* context, int status, void*, void* owned) {
    using End = IscsiSession::StepEnd;
    auto& session = *static_cast<IscsiSession*>(owned);
    // What the library has to say is taken now: the target closes the connection next.
    if (status == SCSI_STATUS_GOOD) return session.end_step(End::well, {});
    if (status == SCSI_STATUS_REDIRECT)
      return session.end_step(End::elsewhere, iscsi_get_target_address(context));
    session.end_step(End::badly, iscsi_get_error(context));
  }
  static void nop_answered(iscsi_context*, int status, void*, void* owned) {
    static_cast<IscsiSession*>(owned)->take_nop(status == SCSI_STATUS_GOOD);
  }
};

}  // namespace diskferry::iscsi
