// The monitor's answer to "df": JSON from the network, of which three numbers are of interest.
#include "drivers/rbd/cluster.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

namespace diskferry::rbd {
namespace json = boost::json;

namespace {

const json::value* member(const json::value* of, const char* name) {
  const json::object* object = of == nullptr ? nullptr : of->if_object();
  return object == nullptr ? nullptr : object->if_contains(name);
}
std::optional<std::uint64_t> number(const json::value* of, const char* name) {
  const json::value* found = member(of, name);
  if (found == nullptr) return std::nullopt;
  boost::system::error_code inexact;
  const auto value = found->to_number<std::uint64_t>(inexact);
  return inexact ? std::nullopt : std::optional(value);
}

}  // namespace

std::optional<std::uint64_t> free_bytes_of(std::string_view answer, std::int64_t pool_id) {
  boost::system::error_code failed;
  const json::value root = json::parse({answer.data(), answer.size()}, failed);
  if (failed) return std::nullopt;
  const json::value* pools = member(&root, "pools");
  if (pools == nullptr || !pools->is_array()) return std::nullopt;
  for (const json::value& pool : pools->get_array()) {
    if (number(&pool, "id") != static_cast<std::uint64_t>(pool_id)) continue;
    const json::value* stats = member(&pool, "stats");
    auto free = number(stats, "max_avail");
    const auto quota = number(stats, "quota_bytes");
    const auto used = number(stats, "stored");
    if (free && quota && *quota != 0 && used) *free = std::min(*free, *quota - std::min(*quota, *used));
    return free;
  }
  return std::nullopt;
}

}  // namespace diskferry::rbd
