#include "drivers/foreign/confinement.hpp"

#include <linux/capability.h>

namespace diskferry::foreign {

ChildRights child_rights(Rights wanted, std::uint64_t capabilities) noexcept {
  const auto has = [capabilities](unsigned number) { return (capabilities >> number & 1) != 0; };
  ChildRights rights;
  rights.can_read_all = wanted == Rights::reader && has(CAP_DAC_READ_SEARCH);
  // Docker's default lets root change users, and no more: a reader that may read nothing is no use, and of
  // one that we may not look at (CAP_SYS_PTRACE) we would not learn which files it opens. With CAP_SETPCAP it
  // keeps its capability across the change.
  const bool is_useful =
      wanted == Rights::stranger || (rights.can_read_all && has(CAP_SYS_PTRACE) && has(CAP_SETPCAP));
  rights.changes_user = wanted != Rights::own && is_useful && has(CAP_SETUID) && has(CAP_SETGID);
  return rights;
}

}  // namespace diskferry::foreign
