// How an adoption stands, for those who watch it: fields as those of a replacement, as far as they have a
// meaning here.
#include "gateway/move/adoption.hpp"
#include "gateway/move/state_fields.hpp"

namespace diskferry {

namespace {
struct AdoptedDiskView {
  std::string name{};
  std::uint64_t size_bytes = 0;
  std::uint64_t copied_bytes = 0;
  std::uint64_t dirty_bytes = 0;
};
struct AdoptionView {
  std::string subject{};
  const ReplaceState* state = nullptr;
  std::uint64_t total_bytes = 0;
  std::vector<AdoptedDiskView> disks{};
};
}  // namespace

template <class Fields>
static void list_fields(Fields& fields, const AdoptedDiskView& disk) {
  fields.take("disk", disk.name);
  fields.take("size-bytes", disk.size_bytes);
  fields.take("frontier-bytes", disk.copied_bytes);
  fields.take("copied-bytes", disk.copied_bytes);
  fields.take("dirty-bytes", disk.dirty_bytes);
  fields.take("mode", std::string("synchronous"));
  fields.take("mode-reason", std::string("the hypervisor copies the disk"));
}

template <class Fields>
static void list_fields(Fields& fields, const AdoptionView& view) {
  fields.take("subject", view.subject);
  fields.take("done", view.disks.front().copied_bytes);
  fields.take("total", view.total_bytes);
  fields.take("phase", view.state->phase, phase_words);
  fields.take("word", std::string(operators_word(view.state->phase)));
  fields.take_list("disks", view.disks);
  list_outcome(fields, *view.state);
}

std::string Adoption::progress() const {
  const ReplaceState& state = record_.state();
  const ReplaceDiskState& disk = state.disks.front();
  return write_json(
      AdoptionView{.subject = record_.job().subject,
                   .state = &state,
                   .total_bytes = total_bytes_,
                   .disks = {{.name = disk.name,
                              .size_bytes = disk.size_bytes,
                              .copied_bytes = done_bytes_,
                              .dirty_bytes = total_bytes_ > done_bytes_ ? total_bytes_ - done_bytes_ : 0}}});
}

void Adoption::tell_progress() {
  environment_.bus.publish(
      {.job = record_.job().id, .sequence = 0, .kind = std::string(progress_event), .text = progress()});
}

}  // namespace diskferry
