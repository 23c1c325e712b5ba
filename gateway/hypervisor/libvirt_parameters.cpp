// Typed parameters by name.
#include "gateway/hypervisor/libvirt_parameters.hpp"

#include <new>
#include <string_view>

#include <libvirt/libvirt.h>

namespace diskferry {

LibvirtParameters::~LibvirtParameters() {
  virTypedParamsFree(items_, count_);
}

void LibvirtParameters::check(int result) const {
  if (result < 0) throw std::bad_alloc();  // the only failure of adding a parameter with a valid name
}

void LibvirtParameters::add(const char* name, const std::string& text) {
  if (!text.empty()) check(virTypedParamsAddString(&items_, &count_, &capacity_, name, text.c_str()));
}

void LibvirtParameters::add(const char* name, std::uint64_t number) {
  check(virTypedParamsAddULLong(&items_, &count_, &capacity_, name, number));
}

void LibvirtParameters::add_int(const char* name, int number) {
  check(virTypedParamsAddInt(&items_, &count_, &capacity_, name, number));
}

void LibvirtParameters::add_uint(const char* name, unsigned number) {
  check(virTypedParamsAddUInt(&items_, &count_, &capacity_, name, number));
}

std::optional<std::uint64_t> parameter_number(const _virTypedParameter* items, int count,
                                              const char* name) noexcept {
  const auto unsigned_of = [](long long value) -> std::optional<std::uint64_t> {
    if (value < 0) return std::nullopt;
    return static_cast<std::uint64_t>(value);
  };
  for (int i = 0; i < count; ++i) {
    const auto& item = items[i];
    if (std::string_view(item.field) != name) continue;
    switch (item.type) {
      case VIR_TYPED_PARAM_INT:
        return unsigned_of(item.value.i);
      case VIR_TYPED_PARAM_UINT:
        return item.value.ui;
      case VIR_TYPED_PARAM_LLONG:
        return unsigned_of(item.value.l);
      case VIR_TYPED_PARAM_ULLONG:
        return item.value.ul;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

std::string LibvirtParameters::text(const char* name) const {
  for (int i = 0; i < count_; ++i) {
    const auto& item = items_[i];
    if (std::string_view(item.field) == name && item.type == VIR_TYPED_PARAM_STRING &&
        item.value.s != nullptr)
      return item.value.s;
  }
  return {};
}

}  // namespace diskferry
