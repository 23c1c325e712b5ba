#include "gateway/move/move_way.hpp"

#include "gateway/move/cold_way.hpp"
#include "gateway/move/intercept_way.hpp"
#include "gateway/move/qmp_request.hpp"
#include "gateway/move/qmp_way.hpp"
#include "gateway/move/through_way.hpp"

namespace diskferry {

Task<Result<void>> MoveWay::take_from_target() {
  co_return unexpected(fail(ErrorKind::in_use, "take the move back")
                           .why("the machine moved while it ran")
                           .remedy("move it back from the other host"));
}

std::unique_ptr<MoveWay> make_way(MoveContext& move) {
  if (is_by_qmp(move.request)) return std::make_unique<QmpWay>(move);
  if (move.request.cold) return std::make_unique<ColdWay>(move);
  if (move.state.way == MoveWayKind::through) return std::make_unique<ThroughWay>(move);
  return std::make_unique<InterceptWay>(move);
}

}  // namespace diskferry
