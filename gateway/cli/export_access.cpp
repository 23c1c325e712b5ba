// See export_access.hpp. What is not understood is refused: a rule that silently protects nothing is worse
// than none.
#include "gateway/cli/export_access.hpp"

#include "diskferry/image_uri.hpp"

#include <algorithm>
#include <optional>

namespace diskferry::cli {
namespace {

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "'" : ", '") + printable(name) + "'";
  return text;
}

Error unknown_export(const std::string& option, std::string_view given,
                     const std::vector<std::string>& export_names) {
  return fail(ErrorKind::invalid_argument, "export")
      .why(option + ": no image is exported as '" + printable(given) + "'")
      .remedy("the names are " + listed(export_names));
}

/// Index of the export whose name and "=" the rule begins with.
std::optional<std::size_t> export_of(std::string_view rule, const std::vector<std::string>& export_names) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < export_names.size(); ++i) {
    const std::string& name = export_names[i];
    const bool fits = rule.starts_with(name) && rule.substr(name.size()).starts_with('=');
    if (fits && (!best || name.size() > export_names[*best].size())) best = i;
  }
  return best;
}

}  // namespace

Result<std::vector<AccessRules>> access_rules(const AccessOptions& options,
                                              const std::vector<std::string>& export_names) {
  std::vector<AccessRules> rules(export_names.size());
  for (const std::string& name : options.require_tls) {
    const auto found = std::ranges::find(export_names, name);
    if (found == export_names.end()) return unexpected(unknown_export("--require-tls", name, export_names));
    rules[static_cast<std::size_t>(found - export_names.begin())].requires_tls = true;
  }
  for (const std::string& rule : options.allow_for) {
    if (rule.find('=') == std::string::npos)
      return unexpected(fail(ErrorKind::invalid_argument, "export")
                            .why("--allow-for: '" + printable(rule) + "' names no client")
                            .remedy("write --allow-for EXPORT=CLIENT"));
    const auto found = export_of(rule, export_names);
    if (!found)
      return unexpected(
          unknown_export("--allow-for", std::string_view(rule).substr(0, rule.find('=')), export_names));
    const std::string client = rule.substr(export_names[*found].size() + 1);
    if (client.empty())
      return unexpected(fail(ErrorKind::invalid_argument, "export")
                            .why("--allow-for: '" + printable(rule) + "' names no client")
                            .remedy("write --allow-for EXPORT=CLIENT"));
    rules[*found].requires_tls = true;
    rules[*found].allow.push_back(client);
  }
  return rules;
}

}  // namespace diskferry::cli
