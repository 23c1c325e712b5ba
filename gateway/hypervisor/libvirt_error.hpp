// What libvirt's errors mean to us. Called on the thread that made the failing call, right after it.
#pragma once

#include "diskferry/error.hpp"
#include "gateway/hypervisor/libvirt_names.hpp"

#include <string>
#include <string_view>

namespace diskferry {

/// The kind that an error of libvirt stands for. `code` is a virErrorNumber; the message decides only where
/// libvirt has one code for different things.
ErrorKind kind_of_libvirt(int code, std::string_view message) noexcept;

/// The calling thread's last error of libvirt. `connection` may be null; where it is lost, so is the kind:
/// gone. An `internal` of ours is never returned, even where libvirt set no error.
Error libvirt_error(_virConnect* connection, std::string operation, std::string object);

/// An error where a call on `domain` returned a negative number.
Result<void> check_libvirt(int result, _virConnect* connection, const char* operation, _virDomain* domain);

/// No prints of libvirt's on our stderr. Process-wide.
void silence_libvirt();

}  // namespace diskferry
