// What other gateways and clients ask of jobs, and what is read from job records: the first byte says which
// of these documents the rest is. Any text must be answered, and what is accepted must survive being written
// down and read again. What is told of a replacement to people stays on its lines.
#include "diskferry/assert.hpp"
#include "gateway/cli/job_figures.hpp"
#include "gateway/cli/replace_view.hpp"
#include "gateway/move/evacuation_request.hpp"
#include "gateway/move/move_record.hpp"
#include "gateway/move/move_state.hpp"
#include "gateway/move/replace_request.hpp"
#include "gateway/move/request.hpp"
#include "gateway/move/storage_view.hpp"
#include "gateway/move/target_gateway.hpp"
#include "gateway/move/target_machine.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

using namespace diskferry;

namespace {

void check_line(std::string_view text) {
  DISKFERRY_ASSERT(std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }),
                   "what is told has no control characters");
}

template <auto parse>
void round_trip(std::string_view text) {
  const auto parsed = parse(text);
  if (!parsed) return check_line(parsed.error().message());
  const std::string written = to_json(*parsed);
  const auto again = parse(written);
  DISKFERRY_ASSERT(again.has_value(), "what was accepted can be written down and read again");
  DISKFERRY_ASSERT(to_json(*again) == written, "a round trip changes nothing");
}

void tell(std::string_view text) {
  const auto document = cli::object_of(std::string(text));
  for (const auto& [name, line] : cli::state_lines(document, document)) check_line(line);
  for (const std::string& line : cli::report_lines(document)) check_line(line);
  (void)cli::was_refused(document);
}

constexpr std::array documents{
    &round_trip<&parse_replace_request>,     &round_trip<&parse_replace_state>,
    &round_trip<&parse_move_request>,        &round_trip<&parse_move_state>,
    &round_trip<&parse_evacuation_request>,  &round_trip<&parse_target_records>,
    &round_trip<&parse_storage_question>,    &round_trip<&parse_storage_view>,
    &round_trip<&parse_target_disk_request>, &round_trip<&parse_prepared_disk>,
    &round_trip<&parse_finish_request>,      &round_trip<&parse_gateway_facts>,
    &round_trip<&parse_target_machine_call>, &round_trip<&parse_target_machine_answer>,
    &round_trip<&parse_reach_request>,       &tell};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  documents[data[0] % documents.size()](std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
  return 0;
}
