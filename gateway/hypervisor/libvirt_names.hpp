// libvirt's own names for what its functions work on, so that its header stays in the .cpp files.
#pragma once

// NOLINTBEGIN(bugprone-reserved-identifier)
struct _virConnect;
struct _virDomain;
struct _virTypedParameter;
// NOLINTEND(bugprone-reserved-identifier)
