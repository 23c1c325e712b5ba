#pragma once
// STAND-IN for the branch xml: to be dropped when that is merged.
#include "diskferry/error.hpp"
#include "gateway/hypervisor/virtual_machine.hpp"

#include <string_view>

namespace diskferry {
Result<VmDescription> read_domain(std::string_view xml);
}
