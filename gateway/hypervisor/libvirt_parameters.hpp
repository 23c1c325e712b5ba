// libvirt's typed parameters, which its larger calls take and return. Internal to this room.
#pragma once

#include "gateway/hypervisor/libvirt_names.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace diskferry {

/// Whatever integer type it has; nullopt where it is absent or negative.
std::optional<std::uint64_t> parameter_number(const _virTypedParameter* items, int count,
                                              const char* name) noexcept;

/// Thread: one at a time. Running out of memory ends in std::bad_alloc.
class LibvirtParameters {
 public:
  LibvirtParameters() = default;
  LibvirtParameters(const LibvirtParameters&) = delete;
  LibvirtParameters& operator=(const LibvirtParameters&) = delete;
  ~LibvirtParameters();

  /// Adds a parameter; an empty text is not added.
  void add(const char* name, const std::string& text);
  void add(const char* name, std::uint64_t number);
  void add_uint(const char* name, unsigned number);
  void add_int(const char* name, int number);

  std::optional<std::uint64_t> number(const char* name) const noexcept {
    return parameter_number(items_, count_, name);
  }
  std::string text(const char* name) const;

  _virTypedParameter* data() const noexcept { return items_; }
  unsigned size() const noexcept { return static_cast<unsigned>(count_); }
  /// For calls that return parameters: they become owned here.
  _virTypedParameter** items() noexcept { return &items_; }
  int* count() noexcept { return &count_; }

 private:
  void check(int result) const;
  _virTypedParameter* items_ = nullptr;
  int count_ = 0;
  int capacity_ = 0;
};

}  // namespace diskferry
