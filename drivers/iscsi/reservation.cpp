#include "drivers/iscsi/reservation.hpp"

#include "diskferry/units.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace diskferry::iscsi {
namespace {

constexpr std::uint64_t mark = 0xdf;  // ours, for who looks at a target
constexpr unsigned mark_shift = 56;
constexpr unsigned host_shift = 32;
constexpr unsigned process_shift = 10;
constexpr std::uint32_t host_mask = (1u << 24) - 1;
constexpr std::uint32_t process_mask = (1u << 22) - 1;  // Linux has no more (PID_MAX_LIMIT)
constexpr std::uint32_t number_mask = (1u << process_shift) - 1;

/// FNV-1a: the same in every version of ours.
std::uint64_t hash(std::string_view text) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return value;
}

template <class T>
T number_at(Bytes bytes, std::size_t at) noexcept {
  return at + sizeof(T) <= bytes.size() ? load_big<T>(bytes.data() + at) : T{0};
}

/// What follows the generation and the length.
Bytes content_of(Bytes answer) noexcept {
  if (answer.size() < 8) return {};
  return answer.subspan(8, std::min<std::size_t>(number_at<std::uint32_t>(answer, 4), answer.size() - 8));
}

}  // namespace

Maker make_maker(std::string_view host, std::uint32_t process) {
  const std::uint64_t value = hash(host);
  return {.host = static_cast<std::uint32_t>(value ^ value >> 32) & host_mask,
          .process = process & process_mask};
}

std::uint64_t make_key(const Maker& maker, std::uint32_t number) {
  return mark << mark_shift | std::uint64_t{maker.host} << host_shift |
         std::uint64_t{maker.process} << process_shift | (number & number_mask);
}

std::optional<Maker> maker_of(std::uint64_t key) {
  if (key >> mark_shift != mark) return std::nullopt;
  return Maker{.host = static_cast<std::uint32_t>(key >> host_shift) & host_mask,
               .process = static_cast<std::uint32_t>(key >> process_shift) & process_mask};
}

std::vector<std::uint64_t> keys_in(Bytes answer) {
  std::vector<std::uint64_t> keys;
  for (Bytes rest = content_of(answer); rest.size() >= 8; rest = rest.subspan(8))
    keys.push_back(number_at<std::uint64_t>(rest, 0));
  return keys;
}

std::optional<Reservation> reservation_in(Bytes answer) {
  const Bytes content = content_of(answer);
  if (content.size() < 16) return std::nullopt;
  return Reservation{.key = number_at<std::uint64_t>(content, 0),
                     .type = static_cast<std::uint8_t>(std::to_integer<unsigned>(content[13]) & 0xf)};
}

bool is_left_behind(std::uint64_t key, const Processes& processes) {
  const auto maker = maker_of(key);
  if (!maker || maker->host != processes.self.host) return false;
  return maker->process == processes.self.process ? !processes.is_in_use(key)
                                                  : !processes.is_running(maker->process);
}

std::optional<Error> obstacle(const std::optional<Reservation>& held, const Processes& processes,
                              const std::string& name) {
  if (!held || is_left_behind(held->key, processes)) return std::nullopt;
  const auto maker = maker_of(held->key);
  Error error = fail(ErrorKind::in_use, "reserve", name);
  if (maker && maker->host == processes.self.host)
    return std::move(error)
        .why(fmt::format("process {} of this host writes to it", maker->process))
        .remedy(
            "wait until that has ended; if it is another program that got the number of one that was killed, "
            "add steal-reservation=yes");
  return std::move(error)
      .why(fmt::format("{} has reserved it (key {:#018x}, type {})",
                       maker ? "a diskferry of another host, or of an earlier boot," : "another initiator",
                       held->key, held->type))
      .remedy("end what uses it there; if that is gone for certain, add steal-reservation=yes");
}

}  // namespace diskferry::iscsi
