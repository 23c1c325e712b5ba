// What was written and is not known to be durable, by the server's verifier: a server that was restarted
// has another one, and what it had taken under the old one may be lost. NFS servers give one with each
// answer (RFC 1813, 3.3.7 and 3.3.21); of a LUN it is the key that was registered with it.
#pragma once

#include <array>
#include <mutex>
#include <optional>

namespace diskferry {

using Verifier = std::array<char, 8>;

/// Thread: any.
class Unflushed {
 public:
  /// A write was answered.
  void written(const Verifier& verifier);
  bool is_empty() const;
  /// Before a commit is sent: what it has to cover is set apart. One commit at a time.
  void begin_commit();
  /// The commit was answered. False: some of what it had to cover may be lost, and stays so.
  bool committed(const Verifier& verifier);
  /// The commit failed: what it had to cover is still to be covered.
  void failed();
  /// Whether a server with this verifier still has all of them: what is read under another may be older.
  bool are_of(const Verifier& verifier) const;
  /// The server says that it has lost something that it had acknowledged.
  void lose();
  bool is_lost() const;

 private:
  struct Writes {
    std::optional<Verifier> verifier{};
    bool is_mixed = false;  ///< under different verifiers
    bool are_of(const Verifier& one) const { return !verifier || (*verifier == one && !is_mixed); }
    void add(const Verifier& one) {
      if (verifier && *verifier != one) is_mixed = true;
      verifier = one;
    }
  };

  mutable std::mutex guard_;
  Writes open_{};
  Writes covered_{};
  bool is_lost_ = false;
};

}  // namespace diskferry
