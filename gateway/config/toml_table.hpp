// Reading a TOML document key by key: each key is taken out once, and what nobody took is an error, so that a
// misspelt key never passes in silence. The first problem is kept, with its FILE:LINE. Used by config.cpp.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/config/config.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace diskferry {

/// Where the problems of one document go. Thread: one.
class TomlProblems {
 public:
  void add(const std::string& where, std::string why);
  const std::optional<Error>& first() const noexcept { return first_; }

 private:
  std::optional<Error> first_{};
};

/// One table of a document. Keys that are not there leave the value as it is.
/// Lifetime: the document and the problems outlive it.
class TomlTable {
 public:
  struct Node;  // a value of the library
  TomlTable(const Node& node, std::string name, TomlProblems& problems);
  ~TomlTable();
  TomlTable(TomlTable&&) noexcept;

  void text(std::string_view key, std::string& into);
  void text(std::string_view key, ConfigText& into);
  /// A list, or a single text.
  void texts(std::string_view key, std::vector<std::string>& into);
  void texts(std::string_view key, std::vector<ConfigText>& into);
  void flag(std::string_view key, bool& into);
  void number(std::string_view key, std::uint32_t& into, std::uint32_t min, std::uint32_t max);
  /// "64M", or an integer.
  void bytes(std::string_view key, std::uint64_t& into);
  /// "500ms", "2s", "1m".
  void duration(std::string_view key, std::chrono::milliseconds& into);
  /// One of `words`; its index.
  std::optional<std::size_t> word(std::string_view key, std::span<const std::string_view> words);
  /// Calls `read` with the table of that name, where it is there.
  void table(std::string_view key, const std::function<void(TomlTable&)>& read);
  /// The same for each table of a list ([[key]]).
  void tables(std::string_view key, const std::function<void(TomlTable&)>& read);

  /// Says that this table, or the value of a key in it, is wrong.
  void problem(std::string_view key, std::string why);
  /// "FILE:LINE" of the table.
  std::string where() const;
  /// Every key that was not taken is a problem.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Parses `text` and calls `read` with the outermost table. Errors: invalid_argument.
Result<void> read_toml(std::string_view text, const std::string& name,
                       const std::function<void(TomlTable&)>& read);

}  // namespace diskferry
