#include "drivers/support/unflushed.hpp"

#include <utility>

namespace diskferry {

void Unflushed::written(const Verifier& verifier) {
  std::lock_guard lock(guard_);
  open_.add(verifier);
}

bool Unflushed::is_empty() const {
  std::lock_guard lock(guard_);
  return !open_.verifier;
}

void Unflushed::begin_commit() {
  std::lock_guard lock(guard_);
  covered_ = std::exchange(open_, {});
}

bool Unflushed::committed(const Verifier& verifier) {
  std::lock_guard lock(guard_);
  const Writes covered = std::exchange(covered_, {});
  if (covered.is_mixed || (covered.verifier && *covered.verifier != verifier)) is_lost_ = true;
  return !is_lost_;
}

void Unflushed::failed() {
  std::lock_guard lock(guard_);
  const Writes later = std::exchange(open_, std::exchange(covered_, {}));
  if (later.verifier) open_.add(*later.verifier);
  open_.is_mixed = open_.is_mixed || later.is_mixed;
}

bool Unflushed::are_of(const Verifier& verifier) const {
  std::lock_guard lock(guard_);
  return !is_lost_ && open_.are_of(verifier) && covered_.are_of(verifier);
}

void Unflushed::lose() {
  std::lock_guard lock(guard_);
  is_lost_ = true;
}

bool Unflushed::is_lost() const {
  std::lock_guard lock(guard_);
  return is_lost_;
}

}  // namespace diskferry
