// Reading fault rules as an operator writes them. Pure; the grammar is at parse_fault_plan().
#include "diskferry/error_kinds.hpp"
#include "diskferry/units.hpp"
#include "drivers/filters/fault.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <string>

namespace diskferry {
namespace {

constexpr std::array<std::string_view, fault_verb_count + 1> verb_names{
    "read", "write", "write_zeroes", "discard", "flush", "extents", "close", "any"};
constexpr std::size_t rules_max = 1000;

Error bad_rule(std::string_view rule, std::string why) {
  return fail(ErrorKind::invalid_argument, "parse fault rule", std::string(rule.substr(0, 200)))
      .why(std::move(why));
}

/// Takes the text up to the first `separator` off the front of `text`.
std::string_view take_until(std::string_view& text, char separator) {
  const auto at = text.find(separator);
  const auto taken = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return taken;
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Duration> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view suffix;
    Duration length;
  };
  // Longest suffix first: "ms" also ends in "s".
  constexpr std::array<Unit, 3> units{{{"us", std::chrono::microseconds(1)},
                                       {"ms", std::chrono::milliseconds(1)},
                                       {"s", std::chrono::seconds(1)}}};
  for (const Unit& unit : units) {
    if (!text.ends_with(unit.suffix)) continue;
    const auto count = parse_number<std::uint32_t>(text.substr(0, text.size() - unit.suffix.size()));
    if (!count) return std::nullopt;
    return *count * unit.length;
  }
  return std::nullopt;
}

std::optional<ErrorKind> parse_kind(std::string_view text) {
  if (text.empty()) return ErrorKind::io;
  const auto found = std::ranges::find(error_kinds, text, &ErrorKindRow::name);
  if (found == error_kinds.end()) return std::nullopt;
  return found->kind;
}

/// "3", "3-" or "3-5".
bool parse_calls(std::string_view text, FaultRule& rule) {
  const auto dash = text.find('-');
  const auto first = parse_number<std::uint64_t>(text.substr(0, dash));
  if (!first || *first == 0) return false;
  rule.first_call = *first;
  rule.last_call = *first;
  if (dash == std::string_view::npos) return true;
  const auto rest = text.substr(dash + 1);
  if (rest.empty()) {
    rule.last_call = UINT64_MAX;
    return true;
  }
  const auto last = parse_number<std::uint64_t>(rest);
  if (!last || *last < *first) return false;
  rule.last_call = *last;
  return true;
}

bool parse_range(std::string_view text, FaultRule& rule) {
  const auto plus = text.find('+');
  if (plus == std::string_view::npos) return false;
  const auto offset = parse_bytes(text.substr(0, plus));
  const auto length = parse_bytes(text.substr(plus + 1));
  if (!offset || !length || *length == 0) return false;
  rule.range = {*offset, *length};
  return true;
}

/// True when `key` is an action; `ok` says whether its value made sense.
bool parse_action(std::string_view key, std::string_view value, FaultRule& rule, bool& ok) {
  if (key == "fail" || key == "fail-late") {
    rule.action = key == "fail" ? FaultAction::fail : FaultAction::fail_late;
    const auto kind = parse_kind(value);
    ok = kind.has_value();
    rule.error = kind.value_or(ErrorKind::io);
  } else if (key == "delay") {
    rule.action = FaultAction::delay;
    const auto delay = parse_duration(value);
    ok = delay.has_value();
    rule.delay = delay.value_or(Duration{});
  } else if (key == "corrupt") {
    rule.action = FaultAction::corrupt;
    const auto bytes = parse_number<std::uint32_t>(value.empty() ? "1" : value);
    ok = bytes && *bytes > 0;
    rule.corrupt_bytes = bytes.value_or(1);
  } else if (key == "ignore" || key == "hang" || key == "cut") {
    rule.action = key == "ignore" ? FaultAction::ignore
                  : key == "hang" ? FaultAction::hang
                                  : FaultAction::cut_power;
    ok = value.empty();
  } else {
    return false;
  }
  return true;
}

bool parse_condition(std::string_view key, std::string_view value, FaultRule& rule, bool& ok) {
  if (key == "calls") {
    ok = parse_calls(value, rule);
  } else if (key == "range") {
    ok = parse_range(value, rule);
  } else if (key == "p") {
    const auto probability = parse_number<double>(value);
    ok = probability && *probability >= 0 && *probability <= 1;
    rule.probability = probability.value_or(0);
  } else if (key == "torn") {
    ok = value.empty();
    rule.torn = true;
  } else {
    return false;
  }
  return true;
}

Result<FaultRule> parse_rule(std::string_view text) {
  FaultRule rule;
  std::string_view rest = text;
  const auto verb = std::ranges::find(verb_names, take_until(rest, ','));
  if (verb == verb_names.end())
    return unexpected(
        bad_rule(text, fmt::format("a rule begins with one of {}", fmt::join(verb_names, ", "))));
  rule.verb = static_cast<FaultVerb>(verb - verb_names.begin());
  unsigned actions = 0;
  while (!rest.empty()) {
    std::string_view value = take_until(rest, ',');
    const std::string_view key = take_until(value, '=');
    bool ok = true;
    if (parse_action(key, value, rule, ok)) {
      ++actions;
    } else if (!parse_condition(key, value, rule, ok)) {
      return unexpected(bad_rule(
          text,
          fmt::format("no key '{}'; there are fail, fail-late, delay, corrupt, ignore, hang, cut, calls, "
                      "range, p, torn",
                      key)));
    }
    if (!ok) return unexpected(bad_rule(text, fmt::format("'{}' is no value for {}", value, key)));
  }
  if (actions != 1) return unexpected(bad_rule(text, "a rule has one action"));
  return rule;
}

}  // namespace

Result<FaultPlan> parse_fault_plan(std::string_view text) {
  FaultPlan plan;
  while (!text.empty()) {
    const std::string_view rule = take_until(text, ';');
    if (rule.empty()) continue;
    if (rule.starts_with("seed=")) {
      const auto seed = parse_number<std::uint64_t>(rule.substr(5));
      if (!seed) return unexpected(bad_rule(rule, "the seed is a number"));
      plan.seed = *seed;
      continue;
    }
    if (plan.rules.size() == rules_max) return unexpected(bad_rule(rule, "too many rules"));
    DISKFERRY_TRY(const FaultRule parsed, parse_rule(rule));
    plan.rules.push_back(parsed);
  }
  return plan;
}

}  // namespace diskferry
