// Who may write to a LUN: persistent reservations (SPC-5, 5.15). Pure. Our keys tell who made them, so that
// what a gateway left behind that was killed is recognised, and everybody else's is respected.
#pragma once

#include "drivers/iscsi/lun.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace diskferry::iscsi {

/// A process of this host, as far as 56 bits tell it from others.
struct Maker {
  std::uint32_t host =
      0;  ///< 24 bits: of the machine, this boot of it, and the processes that see each other
  std::uint32_t process = 0;  ///< 22 bits: its number
  bool operator==(const Maker&) const = default;
};
/// `host`: whatever is the same for all processes that could see whether this one runs, and for no others.
Maker make_maker(std::string_view host, std::uint32_t process);

/// `number`: any; its lowest 10 bits are taken. Never 0.
std::uint64_t make_key(const Maker& maker, std::uint32_t number);
/// nullopt: nobody of ours made it.
std::optional<Maker> maker_of(std::uint64_t key);

struct Reservation {
  std::uint64_t key = 0;
  std::uint8_t type = 0;
};
/// Of READ KEYS. Only as many as the answer holds.
std::vector<std::uint64_t> keys_in(Bytes answer);
/// Of READ RESERVATION; nullopt: nobody holds one.
std::optional<Reservation> reservation_in(Bytes answer);

/// Whether a process has ended whose keys these are: it did not let go of them, and never will.
struct Processes {
  Maker self;
  std::function<bool(std::uint32_t process)> is_running;
  std::function<bool(std::uint64_t key)> is_in_use;  ///< by this process
};
bool is_left_behind(std::uint64_t key, const Processes& processes);

/// What stands in the way of writing; nullopt: nothing, or what was left behind by one of ours.
std::optional<Error> obstacle(const std::optional<Reservation>& held, const Processes& processes,
                              const std::string& name);

}  // namespace diskferry::iscsi
