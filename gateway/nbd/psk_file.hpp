// Pre-shared keys as psktool of GnuTLS writes them: one user:hexkey a line. Used by the TLS context.
#pragma once

#include "diskferry/error.hpp"

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace diskferry::nbd_server {

/// Keys by user; wiped when dropped.
class PskTable {
 public:
  PskTable() = default;
  PskTable(const PskTable&) = delete;
  PskTable& operator=(const PskTable&) = delete;
  ~PskTable();
  bool empty() const { return keys_.empty(); }
  void add(std::string user, std::vector<unsigned char> key) { keys_[std::move(user)] = std::move(key); }
  const std::vector<unsigned char>* find(std::string_view user) const {
    const auto found = keys_.find(user);
    return found == keys_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::string, std::vector<unsigned char>, std::less<>> keys_;
};

/// Adds the file's keys. Errors: invalid_argument (name the file and the line, never its content), those of
/// opening it.
Result<void> read_psk_file(const std::string& path, PskTable& into);

}  // namespace diskferry::nbd_server
