// The difference of two documents as `diff -u` shows it, by E. Myers' greedy algorithm ("An O(ND) Difference
// Algorithm and Its Variations", 1986) with a bound on the number of differences.
#include "gateway/hypervisor/domain_xml.hpp"
#include "gateway/hypervisor/xml_tree.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <span>

#include <pugixml.hpp>

namespace diskferry {
namespace {

using Lines = std::vector<std::string>;
using LineSpan = std::span<const std::string>;
constexpr std::size_t context_lines = 3;

struct Edit {
  enum class Kind : char { keep = ' ', remove = '-', add = '+' };
  Kind kind = Kind::keep;
  std::string_view line{};
};
using Edits = std::vector<Edit>;

Lines lines_of(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// The next node in the order of the text; null behind the last one.
pugi::xml_node following(pugi::xml_node node) {
  if (node.first_child()) return node.first_child();
  while (node && !node.next_sibling()) node = node.parent();
  return node ? node.next_sibling() : node;
}

/// Passwords of graphical consoles are in the document that libvirt wants back; nobody needs to see them.
void mask_passwords(const pugi::xml_document& document) {
  for (auto node = document.first_child(); node; node = following(node)) {
    if (auto password = node.attribute("passwd")) password.set_value("***");
  }
}

class StringWriter final : public pugi::xml_writer {
 public:
  void write(const void* data, std::size_t size) override {
    text.append(static_cast<const char*>(data), size);
  }
  std::string text;
};

/// One element a line, as libvirt lays it out. What is no XML is compared as it is.
Lines pretty_lines(std::string_view xml) {
  pugi::xml_document document;
  constexpr unsigned parse_flags = pugi::parse_full & ~unsigned{pugi::parse_doctype};
  if (xml.size() > domain_xml_bytes_max ||
      !document.load_buffer(xml.data(), xml.size(), parse_flags, pugi::encoding_utf8))
    return lines_of(xml);
  mask_passwords(document);
  StringWriter writer;
  document.save(writer, "  ",
                pugi::format_indent | pugi::format_attribute_single_quote | pugi::format_no_declaration,
                pugi::encoding_utf8);
  Lines lines = lines_of(writer.text);
  for (std::string& line : lines) {
    if (line.ends_with(" />")) line.erase(line.size() - 3, 1);
  }
  return lines;
}

/// The furthest points reached with each number of differences, by diagonal; the way back goes through them.
class Search {
 public:
  Search(LineSpan before, LineSpan after) : before_(before), after_(after) {}

  /// The edits from before to after, or nullopt where there are more than the bound.
  std::optional<Edits> run() {
    const std::ptrdiff_t limit = std::min<std::ptrdiff_t>(std::ssize(before_) + std::ssize(after_),
                                                          std::ptrdiff_t{xml_diff_edits_max});
    reached_.assign(static_cast<std::size_t>(2 * limit + 3), 0);
    middle_ = limit + 1;
    for (std::ptrdiff_t differences = 0; differences <= limit; ++differences) {
      // Only the diagonals this step may look at are kept, so that the memory is that of a triangle.
      rows_.emplace_back(reached_.begin() + (middle_ - differences - 1),
                         reached_.begin() + (middle_ + differences + 2));
      for (std::ptrdiff_t diagonal = -differences; diagonal <= differences; diagonal += 2) {
        if (advance(differences, diagonal)) return walk_back(differences);
      }
    }
    return std::nullopt;
  }

 private:
  std::ptrdiff_t& at(std::ptrdiff_t diagonal) {
    return reached_[static_cast<std::size_t>(middle_ + diagonal)];
  }
  /// What was reached on a diagonal before the step `differences`.
  std::ptrdiff_t earlier(std::ptrdiff_t differences, std::ptrdiff_t diagonal) const {
    return rows_[static_cast<std::size_t>(differences)][static_cast<std::size_t>(diagonal + differences + 1)];
  }
  /// Whether the last difference on this diagonal was an added line, which keeps the place in `before`.
  bool comes_from_above(std::ptrdiff_t differences, std::ptrdiff_t diagonal) const {
    return diagonal == -differences || (diagonal != differences && earlier(differences, diagonal - 1) <
                                                                       earlier(differences, diagonal + 1));
  }

  bool advance(std::ptrdiff_t differences, std::ptrdiff_t diagonal) {
    std::ptrdiff_t x = 0;
    if (differences != 0)
      x = comes_from_above(differences, diagonal) ? earlier(differences, diagonal + 1)
                                                  : earlier(differences, diagonal - 1) + 1;
    std::ptrdiff_t y = x - diagonal;
    while (x < std::ssize(before_) && y < std::ssize(after_) && line(before_, x) == line(after_, y)) ++x, ++y;
    at(diagonal) = x;
    return x >= std::ssize(before_) && y >= std::ssize(after_);
  }

  Edits walk_back(std::ptrdiff_t differences) const {
    Edits edits;
    std::ptrdiff_t x = std::ssize(before_);
    std::ptrdiff_t y = std::ssize(after_);
    for (; differences > 0; --differences) {
      const bool is_added = comes_from_above(differences, x - y);
      const std::ptrdiff_t from_diagonal = is_added ? x - y + 1 : x - y - 1;
      const std::ptrdiff_t from_x = earlier(differences, from_diagonal);
      const std::ptrdiff_t from_y = from_x - from_diagonal;
      for (; x > from_x + (is_added ? 0 : 1); --x, --y)
        edits.push_back({Edit::Kind::keep, line(before_, x - 1)});
      edits.push_back(is_added ? Edit{Edit::Kind::add, line(after_, from_y)}
                               : Edit{Edit::Kind::remove, line(before_, from_x)});
      x = from_x;
      y = from_y;
    }
    for (; x > 0; --x) edits.push_back({Edit::Kind::keep, line(before_, x - 1)});
    std::ranges::reverse(edits);
    return edits;
  }

  static const std::string& line(LineSpan lines, std::ptrdiff_t index) {
    return lines[static_cast<std::size_t>(index)];
  }

  LineSpan before_;
  LineSpan after_;
  std::vector<std::ptrdiff_t> reached_{};
  std::ptrdiff_t middle_ = 0;
  std::vector<std::vector<std::ptrdiff_t>> rows_{};
};

Edits edits_between(LineSpan before, LineSpan after) {
  const auto head = static_cast<std::size_t>(std::ranges::mismatch(before, after).in1 - before.begin());
  std::size_t tail = 0;
  while (tail < std::min(before.size(), after.size()) - head &&
         before[before.size() - 1 - tail] == after[after.size() - 1 - tail])
    ++tail;
  const LineSpan old_middle = before.subspan(head, before.size() - head - tail);
  const LineSpan new_middle = after.subspan(head, after.size() - head - tail);
  auto middle = Search(old_middle, new_middle).run();
  if (!middle) {
    middle.emplace();
    for (const auto& line : old_middle) middle->push_back({Edit::Kind::remove, line});
    for (const auto& line : new_middle) middle->push_back({Edit::Kind::add, line});
  }
  Edits edits;
  for (const auto& line : before.first(head)) edits.push_back({Edit::Kind::keep, line});
  edits.insert(edits.end(), middle->begin(), middle->end());
  for (const auto& line : before.last(tail)) edits.push_back({Edit::Kind::keep, line});
  return edits;
}

std::size_t count(std::span<const Edit> edits, Edit::Kind other) {
  return static_cast<std::size_t>(
      std::ranges::count_if(edits, [other](const Edit& edit) { return edit.kind != other; }));
}

/// "12,7", as `diff -u` counts: a range of no lines is named by the line before it.
std::string range_text(std::size_t first, std::size_t length) {
  if (length == 1) return fmt::format("{}", first + 1);
  return fmt::format("{},{}", length == 0 ? first : first + 1, length);
}

/// Where the hunk that begins at a difference ends: behind the context of the last difference that is near.
std::size_t hunk_end(const Edits& edits, std::size_t begin) {
  std::size_t last = begin;
  for (std::size_t i = begin; i < edits.size() && i <= last + 2 * context_lines + 1; ++i) {
    if (edits[i].kind != Edit::Kind::keep) last = i;
  }
  return std::min(edits.size(), last + 1 + context_lines);
}

std::string unified(const Edits& edits) {
  std::string text;
  std::size_t old_line = 0;  // lines in front of `done`
  std::size_t new_line = 0;
  std::size_t done = 0;
  while (true) {
    const auto found = std::find_if(edits.begin() + static_cast<std::ptrdiff_t>(done), edits.end(),
                                    [](const Edit& edit) { return edit.kind != Edit::Kind::keep; });
    if (found == edits.end()) return text;
    const auto difference = static_cast<std::size_t>(found - edits.begin());
    const std::size_t begin = std::max(done, difference - std::min(difference, context_lines));
    const std::size_t end = hunk_end(edits, difference);
    old_line += begin - done;
    new_line += begin - done;
    const auto hunk = std::span(edits).subspan(begin, end - begin);
    const std::size_t old_length = count(hunk, Edit::Kind::add);
    const std::size_t new_length = count(hunk, Edit::Kind::remove);
    text +=
        fmt::format("@@ -{} +{} @@\n", range_text(old_line, old_length), range_text(new_line, new_length));
    for (const Edit& edit : hunk)
      text += fmt::format("{}{}\n", static_cast<char>(edit.kind), printable(edit.line));
    old_line += old_length;
    new_line += new_length;
    done = end;
  }
}

}  // namespace

std::string xml_diff(std::string_view before, std::string_view after) {
  const Lines old_lines = pretty_lines(before);
  const Lines new_lines = pretty_lines(after);
  const std::string hunks = unified(edits_between(old_lines, new_lines));
  return hunks.empty() ? hunks : "--- before\n+++ after\n" + hunks;
}

}  // namespace diskferry
