// libvirt's connection URIs, as far as we change them. Pure.
#pragma once

#include <string>
#include <string_view>

namespace diskferry {

/// The URI with what keeps its transport from asking somebody at a terminal: an ssh that wants a password or
/// a yes fails instead. What the URI says itself stays.
std::string without_prompts(std::string_view uri);

}  // namespace diskferry
