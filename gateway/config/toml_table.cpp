// See toml_table.hpp. The only file that knows the TOML library.
#include "gateway/config/toml_table.hpp"

#include "diskferry/image_uri.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>
#include <set>
#include <sstream>

// The library's own code has warnings that ours must not have.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wshadow"
#pragma clang diagnostic ignored "-Wold-style-cast"
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
#include <toml.hpp>
#pragma clang diagnostic pop

namespace diskferry {

struct TomlTable::Node {
  const toml::value& value;
  const std::string& file;
};

struct TomlTable::State {
  const toml::value& value;
  const std::string& file;
  std::string name;
  TomlProblems& problems;
  std::set<std::string> taken{};

  std::string where(const toml::value& of) const { return fmt::format("{}:{}", file, of.location().line()); }
  std::string title(std::string_view key) const {
    return name.empty() ? std::string(key) : fmt::format("{}.{}", name, key);
  }
  void wrong(const toml::value& at, std::string_view key, std::string_view wanted) {
    problems.add(where(at), fmt::format("{} must be {}", title(key), wanted));
  }
  const toml::value* take(std::string_view key) {
    const std::string name_of_key(key);
    if (!value.contains(name_of_key)) return nullptr;
    taken.insert(name_of_key);
    return &value.at(name_of_key);
  }
};

void TomlProblems::add(const std::string& where, std::string why) {
  if (!first_) first_ = fail(ErrorKind::invalid_argument, "read configuration", printable(where)).why(why);
}

TomlTable::TomlTable(const Node& node, std::string name, TomlProblems& problems)
    : state_(std::make_unique<State>(State{node.value, node.file, std::move(name), problems})) {}
TomlTable::~TomlTable() = default;
TomlTable::TomlTable(TomlTable&&) noexcept = default;

std::string TomlTable::where() const {
  return state_->where(state_->value);
}

void TomlTable::problem(std::string_view key, std::string why) {
  const std::string name(key);
  const bool is_there = !key.empty() && state_->value.contains(name);
  state_->problems.add(state_->where(is_there ? state_->value.at(name) : state_->value), std::move(why));
}

void TomlTable::text(std::string_view key, std::string& into) {
  ConfigText found{.text = into};
  text(key, found);
  into = std::move(found.text);
}

void TomlTable::text(std::string_view key, ConfigText& into) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (!value->is_string()) return state_->wrong(*value, key, "a text");
  into = {.text = value->as_string().str, .where = state_->where(*value)};
}

void TomlTable::texts(std::string_view key, std::vector<std::string>& into) {
  std::vector<ConfigText> found;
  const bool is_there = state_->value.contains(std::string(key));
  texts(key, found);
  if (!is_there) return;
  into.clear();
  for (ConfigText& one : found) into.push_back(std::move(one.text));
}

void TomlTable::texts(std::string_view key, std::vector<ConfigText>& into) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  into.clear();
  const auto add = [&](const toml::value& one) {
    if (!one.is_string()) return state_->wrong(one, key, "a list of texts");
    into.push_back({.text = one.as_string().str, .where = state_->where(one)});
  };
  if (!value->is_array()) return add(*value);
  for (const toml::value& one : value->as_array()) add(one);
}

void TomlTable::flag(std::string_view key, bool& into) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (!value->is_boolean()) return state_->wrong(*value, key, "true or false");
  into = value->as_boolean();
}

void TomlTable::number(std::string_view key, std::uint32_t& into, std::uint32_t min, std::uint32_t max) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (!value->is_integer() || value->as_integer() < min || value->as_integer() > max)
    return state_->wrong(*value, key, fmt::format("a number from {} to {}", min, max));
  into = static_cast<std::uint32_t>(value->as_integer());
}

void TomlTable::bytes(std::string_view key, std::uint64_t& into) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (value->is_integer() && value->as_integer() >= 0) {
    into = static_cast<std::uint64_t>(value->as_integer());
    return;
  }
  auto parsed = value->is_string() ? parse_bytes(value->as_string().str) : Result<std::uint64_t>(0);
  if (!value->is_string() || !parsed)
    return state_->wrong(*value, key, "an amount of bytes, such as 65536 or \"64M\"");
  into = *parsed;
}

void TomlTable::duration(std::string_view key, std::chrono::milliseconds& into) {
  struct Unit {
    std::string_view name;
    std::int64_t ms;
  };
  static constexpr std::array<Unit, 3> units{{{"ms", 1}, {"s", 1000}, {"m", 60'000}}};
  constexpr std::int64_t count_max = 1'000'000;
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  const std::string text = value->is_string() ? value->as_string().str : std::string();
  std::int64_t count = -1;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  const auto unit =
      std::ranges::find(units, std::string_view(parsed.ptr, text.data() + text.size()), &Unit::name);
  if (parsed.ec != std::errc() || unit == units.end() || count < 0 || count > count_max)
    return state_->wrong(*value, key, "a time, such as \"500ms\", \"2s\" or \"1m\"");
  into = std::chrono::milliseconds(count * unit->ms);
}

std::optional<std::size_t> TomlTable::word(std::string_view key, std::span<const std::string_view> words) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return std::nullopt;
  const std::string text = value->is_string() ? value->as_string().str : std::string();
  const auto found = std::ranges::find(words, text);
  if (found != words.end()) return static_cast<std::size_t>(found - words.begin());
  state_->wrong(*value, key, fmt::format("one of {}", fmt::join(words, ", ")));
  return std::nullopt;
}

void TomlTable::table(std::string_view key, const std::function<void(TomlTable&)>& read) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (!value->is_table()) return state_->wrong(*value, key, fmt::format("a table, [{}]", key));
  TomlTable inner(Node{*value, state_->file}, state_->title(key), state_->problems);
  read(inner);
  inner.finish();
}

void TomlTable::tables(std::string_view key, const std::function<void(TomlTable&)>& read) {
  const toml::value* value = state_->take(key);
  if (value == nullptr) return;
  if (!value->is_array()) return state_->wrong(*value, key, fmt::format("a list of tables, [[{}]]", key));
  for (const toml::value& one : value->as_array()) {
    if (!one.is_table()) return state_->wrong(one, key, fmt::format("a list of tables, [[{}]]", key));
    TomlTable inner(Node{one, state_->file}, state_->title(key), state_->problems);
    read(inner);
    inner.finish();
  }
}

void TomlTable::finish() {
  for (const auto& [key, value] : state_->value.as_table()) {
    if (!state_->taken.contains(key))
      state_->problems.add(state_->where(value), fmt::format("there is no setting {}", state_->title(key)));
  }
}

namespace {
/// The library tells what is wrong with a picture of the line; the first line of it says enough.
std::string first_line(std::string_view text) {
  if (text.starts_with("[error] ")) text.remove_prefix(8);
  if (text.starts_with("toml::")) text.remove_prefix(text.find(": ") == text.npos ? 0 : text.find(": ") + 2);
  return std::string(text.substr(0, text.find('\n')));
}
/// The library calls itself for each level. Brackets in texts are counted, too: nobody has that many.
bool is_too_deep(std::string_view text) {
  constexpr std::size_t depth_max = 256;
  std::size_t depth = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') {
      if (++depth > depth_max) return true;
    } else if ((c == ']' || c == '}') && depth != 0) {
      --depth;
    }
  }
  return false;
}
}  // namespace

Result<void> read_toml(std::string_view text, const std::string& name,
                       const std::function<void(TomlTable&)>& read) {
  TomlProblems problems;
  // TOML is; and toml11 reads beyond the end of some texts that are not.
  if (!is_utf8(text))
    return unexpected(
        fail(ErrorKind::invalid_argument, "read configuration", printable(name)).why("it is not UTF-8"));
  if (is_too_deep(text))
    return unexpected(
        fail(ErrorKind::too_large, "read configuration", printable(name)).why("it is nested too deep"));
  try {
    std::istringstream stream{std::string(text)};
    const toml::value document = toml::parse(stream, name);
    TomlTable table(TomlTable::Node{document, name}, {}, problems);
    read(table);
    table.finish();
  } catch (const toml::exception& error) {
    problems.add(fmt::format("{}:{}", name, error.location().line()), first_line(error.what()));
  } catch (const std::exception& error) {
    problems.add(name, first_line(error.what()));
  }
  if (problems.first()) return unexpected(*problems.first());
  return {};
}

}  // namespace diskferry
