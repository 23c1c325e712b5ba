// See the header.
#include "drivers/support/world_wide_names.hpp"

namespace diskferry {

bool is_unique_in_the_world(std::string_view name) noexcept {
  // "naa.", a digit for the form (3: assigned locally), and the number of a company.
  if (name.starts_with("naa."))
    return name.size() > 5 && name[4] != '3' && !name.substr(5).starts_with("000000");
  if (name.starts_with("eui.")) return name.find_first_not_of("0.-", 4) != std::string_view::npos;
  return name.starts_with("uuid.") && name.find_first_not_of("0.-", 5) != std::string_view::npos;
}

}  // namespace diskferry
