// One line a verb.
#include "gateway/daemon/local_peers.hpp"

#include "drivers/support/wall_clock.hpp"

namespace diskferry::daemon {

Task<Result<std::string>> LocalPeers::peer(control::PeerCall call) {
  if (call.verb == "facts") {
    GatewayFacts facts = facts_;
    facts.time_ms = now_ms();
    co_return to_json(facts);
  }
  if (call.verb == "reach") {
    DISKFERRY_CO_TRY(auto request, parse_reach_request(call.body_json));
    DISKFERRY_CO_TRY(const GatewayFacts found, co_await reach_(std::move(request.address)));
    co_return to_json(found);
  }
  // What a gateway sends to learn how fast the way is; the server has bounded it.
  if (call.verb == "sink") co_return "{}";
  if (call.verb == "look") {
    DISKFERRY_CO_TRY(auto request, parse_target_disk_request(call.body_json));
    DISKFERRY_CO_TRY(const auto found, co_await disks_.look(std::move(request)));
    co_return to_json(found);
  }
  if (call.verb == "see") {
    DISKFERRY_CO_TRY(auto question, parse_storage_question(call.body_json));
    DISKFERRY_CO_TRY(const auto seen, co_await view_storage(context_, std::move(question)));
    co_return to_json(seen);
  }
  if (call.verb == "prepare") {
    DISKFERRY_CO_TRY(auto request, parse_target_disk_request(call.body_json));
    DISKFERRY_CO_TRY(const auto prepared,
                     co_await disks_.prepare(std::move(request), std::move(call.caller)));
    co_return to_json(prepared);
  }
  if (call.verb == "machine") {
    DISKFERRY_CO_TRY(auto request, parse_target_machine_call(call.body_json));
    DISKFERRY_CO_TRY(const auto answer, co_await machines_.call(std::move(request), std::move(call.caller)));
    co_return to_json(answer);
  }
  if (call.verb == "drop-caches") {
    DISKFERRY_CO_TRY(const auto request, parse_finish_request(call.body_json));
    co_await drop_target_caches(context_, disks_.records(), request.move);
    co_return "{}";
  }
  if (call.verb == "finish") {
    DISKFERRY_CO_TRY(auto request, parse_finish_request(call.body_json));
    DISKFERRY_CO_CHECK(co_await disks_.finish(std::move(request.move), request.end, std::move(call.caller)));
    co_return "{}";
  }
  co_return unexpected(
      fail(ErrorKind::not_found, "help with a move", call.verb).why("there is no such verb"));
}

}  // namespace diskferry::daemon
