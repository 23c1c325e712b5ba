// Fault rules are text that an operator gives to a rehearsal. Parsing must answer any text, and what it
// accepts must be rules that can be decided.
#include "diskferry/assert.hpp"
#include "drivers/filters/fault.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace diskferry;
  auto plan = parse_fault_plan({reinterpret_cast<const char*>(data), size});
  if (!plan) return 0;
  for (const FaultRule& rule : plan->rules) {
    DISKFERRY_ASSERT(rule.first_call >= 1 && rule.first_call <= rule.last_call, "calls are counted from 1");
    DISKFERRY_ASSERT(rule.probability >= 0 && rule.probability <= 1, "a probability is one");
    DISKFERRY_ASSERT(rule.delay >= Duration::zero(), "nothing is delayed into the past");
  }
  FaultControl control(*std::move(plan));
  for (std::size_t verb = 0; verb < fault_verb_count; ++verb)
    (void)control.decide(static_cast<FaultVerb>(verb), {UINT64_MAX - 4096, 4096});
  return 0;
}
