// A device that fails on purpose: by rules, and the same way again for the same seed. It ships in the
// product, so that an operator can rehearse what a move does when storage misbehaves, and it is what the
// tests of everything else are run over. Never opened by a URI that an image could carry.
#pragma once

#include "diskferry/driver.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

namespace diskferry {

enum class FaultVerb : std::uint8_t { read, write, write_zeroes, discard, flush, extents, close, any };
inline constexpr std::size_t fault_verb_count = static_cast<std::size_t>(FaultVerb::any);

enum class FaultAction : std::uint8_t {
  fail,       ///< nothing is done; the call fails with `error`
  fail_late,  ///< the call is done, then it fails with `error`: the answer got lost
  delay,      ///< the call waits for `delay` on the clock, then goes on
  corrupt,    ///< `corrupt_bytes` of what is read or written are changed
  ignore,     ///< success is reported and nothing is done (reads: stale memory is not shown, zeros are)
  hang,       ///< the call waits until it is cancelled
  cut_power,  ///< from this call on nothing reaches the inner device; all fails with `gone`
};

/// When something goes wrong, and what. A rule counts the calls that match its verb and range, from 1.
struct FaultRule {
  FaultVerb verb = FaultVerb::any;  ///< any: all but close
  FaultAction action = FaultAction::fail;
  ErrorKind error = ErrorKind::io;
  Range range{0, UINT64_MAX};    ///< calls that touch it; flush and close touch everything
  std::uint64_t first_call = 1;  ///< counts matching calls
  std::uint64_t last_call = UINT64_MAX;
  double probability = 1.0;         ///< of each call between first and last, decided by the seed
  Duration delay{};                 ///< for `delay`
  std::uint32_t corrupt_bytes = 1;  ///< for `corrupt`
  bool torn =
      false;  ///< a write that fails or is cut off still reaches the device up to some 512-byte sector
};

struct FaultPlan {
  std::uint64_t seed = 0;
  std::vector<FaultRule> rules = {};
};

/// Reads rules as an operator writes them: rules separated by ';', each a verb and its keys separated by ','.
///
///     seed=7;write,fail=io,calls=3-5;read,delay=50ms,p=0.01;write,cut,calls=100,torn;any,hang,range=1M+64K
///
/// Actions: fail=KIND (or fail), fail-late=KIND, delay=TIME, corrupt=BYTES, ignore, hang, cut.
/// Keys: calls=N, N- or N-M; range=OFFSET+LENGTH; p=0..1; torn. Times: 10us, 5ms, 2s. Errors:
/// invalid_argument.
Result<FaultPlan> parse_fault_plan(std::string_view text);

/// The rules of one or several fault devices, and what they have done so far. Thread: any.
class FaultControl {
 public:
  explicit FaultControl(FaultPlan plan);

  void add(FaultRule rule);
  /// Forgets the rules; a power cut stays.
  void clear();
  void cut_power();
  /// For the device that is opened after the cut.
  void restore_power();
  bool is_power_cut() const;
  /// Calls that arrived, also those that failed. Precondition: verb != any.
  std::uint64_t calls(FaultVerb verb) const;
  /// Times that a rule took effect.
  std::uint64_t faults() const;

  /// What one call meets. Several rules may apply: delays add up, of the others the first counts.
  struct Decision {
    Duration delay{};
    bool acts = false;  ///< `action` and `error` hold
    FaultAction action = FaultAction::delay;
    ErrorKind error = ErrorKind::io;
    std::uint32_t corrupt_bytes = 0;
    bool torn = false;
    std::uint64_t random = 0;  ///< decides details: where to corrupt, where to tear
  };
  /// For the fault device: counts the call and decides. `length` 0 touches everything.
  Decision decide(FaultVerb verb, Range range);

 private:
  struct Counted {
    FaultRule rule;
    std::uint64_t index = 0;
    std::uint64_t matched = 0;
  };
  mutable std::mutex guard_;
  const std::uint64_t seed_;
  std::vector<Counted> rules_;
  std::uint64_t rules_added_ = 0;
  std::array<std::uint64_t, fault_verb_count> calls_{};
  std::uint64_t faults_ = 0;
  bool power_is_cut_ = false;
};

/// A filter over `inner`, which is behind checked(); put the filter behind checked(), too. Without rules it
/// passes everything on. Which call is the Nth is only certain where calls come one after another.
/// close() closes `inner`, also when its power is cut. Lifetime: `clock` outlives the device.
DevicePtr make_fault_device(std::shared_ptr<BlockDevice> inner, std::shared_ptr<FaultControl> control,
                            Clock& clock);

}  // namespace diskferry
