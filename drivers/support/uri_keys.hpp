// Values of the keys in a storage's URI that several drivers have in common. Pure. All of them: errors:
// invalid_argument, which names the key.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/image_uri.hpp"

namespace diskferry {

Error bad_uri(const ImageUri& uri, std::string why, std::string remedy = {});
/// "true", "yes", "on", "1", and their contraries; `otherwise` where the key is absent, as in the others.
Result<bool> truth_key(const ImageUri& uri, std::string_view key, bool otherwise);
/// Seconds up to a day, with decimals: tests and impatient operators want less than one.
Result<Duration> seconds_key(const ImageUri& uri, std::string_view key, Duration otherwise);
Result<std::uint32_t> number_key(const ImageUri& uri, std::string_view key, std::uint32_t least,
                                 std::uint32_t most, std::uint32_t otherwise);

}  // namespace diskferry
