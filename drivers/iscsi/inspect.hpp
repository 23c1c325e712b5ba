// Looking at a LUN through a session: what it is, how large, and what it can do.
#pragma once

#include "drivers/iscsi/lun.hpp"
#include "drivers/iscsi/session.hpp"

namespace diskferry::iscsi {

/// The session is logged in, and not up. Errors: not_found (no such LUN), unsupported (no disk), gone (not
/// ready, or the session was lost), protocol. Cancel: ends the session.
Task<Result<LunFacts>> look_at_lun(IscsiSession& session, const Endpoint& endpoint);
/// The same, but only what difference() compares: half as many round trips, for sessions after the first.
Task<Result<LunFacts>> look_at_identity(IscsiSession& session, const Endpoint& endpoint);

/// What it could not be asked while it was reserved by another initiator, or may be by now. Errors: gone,
/// cancelled.
Task<Result<void>> look_at_mode(IscsiSession& session, LunFacts& facts);

/// Nothing where the target does not know the question, or refuses to answer. Errors: gone, cancelled.
Task<Result<std::optional<std::vector<std::byte>>>> ask_for(IscsiSession& session, Command question,
                                                            std::size_t answer_bytes);

}  // namespace diskferry::iscsi
