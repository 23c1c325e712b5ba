// What the driver takes from this host: passwords, our name, and who we are among its processes.
#pragma once

#include "drivers/iscsi/claim.hpp"
#include "drivers/iscsi/endpoint.hpp"
#include "drivers/support/blocking_pool.hpp"

namespace diskferry::iscsi {

struct LocalFacts {
  Secrets secrets{};
  std::string initiator{};
  std::string host_identity{};
};

/// Errors: not_found, permission (of a file), invalid_argument (no password, or one that cannot be).
Task<Result<LocalFacts>> read_local_facts(BlockingPool& pool, Endpoint endpoint);

}  // namespace diskferry::iscsi
