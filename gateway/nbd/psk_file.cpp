// See the header.
#include "gateway/nbd/psk_file.hpp"

#include "diskferry/image_uri.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <fstream>

#include <openssl/crypto.h>

namespace diskferry::nbd_server {
namespace {

constexpr std::size_t file_bytes_max = 1u << 20;
constexpr std::size_t key_bytes_max = 64;  // GnuTLS takes no longer ones

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

PskTable::~PskTable() {
  for (auto& [user, key] : keys_) OPENSSL_cleanse(key.data(), key.size());
}

Result<void> read_psk_file(const std::string& path, PskTable& into) {
  const auto refuse = [&](std::size_t line, std::string why) {
    return unexpected(fail(ErrorKind::invalid_argument, "read pre-shared keys", printable(path))
                          .why(fmt::format("line {}: {}", line, why))
                          .remedy("make the file with psktool: one user:hexkey a line"));
  };
  std::ifstream file(path, std::ios::binary);
  if (!file) return unexpected(errno_error(errno, "open", printable(path)));
  std::string line;
  std::size_t total = 0;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    total += line.size() + 1;
    if (total > file_bytes_max) return refuse(number, "the file is too large");
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.front() == '#') continue;
    const auto colon = line.find(':');
    if (colon == std::string::npos || colon == 0) return refuse(number, "no user in front of a colon");
    const std::string_view hex = std::string_view(line).substr(colon + 1);
    if (hex.empty() || hex.size() % 2 != 0 || hex.size() / 2 > key_bytes_max)
      return refuse(number, fmt::format("a key has 2 to {} hexadecimal digits", 2 * key_bytes_max));
    std::vector<unsigned char> key;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      const int high = hex_digit(hex[i]);
      const int low = hex_digit(hex[i + 1]);
      if (high < 0 || low < 0) return refuse(number, "the key is not hexadecimal");
      key.push_back(static_cast<unsigned char>(high * 16 + low));
    }
    into.add(line.substr(0, colon), std::move(key));
    OPENSSL_cleanse(line.data(), line.size());
  }
  if (into.empty()) return refuse(1, "the file has no keys");
  return {};
}

}  // namespace diskferry::nbd_server
