// The target before the copy: what is there, what may be done with it, and how both sides are best driven.
// Decisions are pure; the copy job acts on them.
#pragma once

#include "gateway/copy/copy_job.hpp"
#include "gateway/copy/engine.hpp"
#include "gateway/copy/identity.hpp"
#include "gateway/copy/plan.hpp"

namespace diskferry {

struct TargetState {
  VolumeFacts volume{};
  std::vector<std::string> keys{};  ///< as storage_keys(); none where nothing is there
  bool can_create = false;          ///< its storage makes volumes
};
Task<Result<TargetState>> look_at_target(DriverContext& context, const CopyRequest& request);
/// The same, opened for its size where the storage does not tell that otherwise (NBD).
Task<Result<TargetState>> look_at_sized_target(DriverContext& context, const CopyRequest& request);

enum class TargetAction : std::uint8_t { create, replace, open, go_on };
/// Errors: already_exists, not_found, unsupported; invalid_argument for options that contradict each other.
Result<TargetAction> decide_target(const TargetState& state, const CopyRequest& request);
/// The same with what the command `copy` can do beside about a target that is there; jobs of a gateway
/// cannot.
Result<TargetAction> decide_copy_target(const TargetState& state, const CopyRequest& request);

Task<Result<void>> create_target(DriverContext& context, const CopyRequest& request,
                                 std::uint64_t size_bytes);
/// Of what create_target() made. Not an error where nothing is there, or where the storage cannot remove.
Task<Result<void>> remove_created_target(DriverContext& context, ImageUri target);
/// False of what is only a part of its server to us: an NBD export, a LUN.
bool can_remove_target(const ImageUri& target) noexcept;

/// It is a block device of this host, and no file.
bool is_block_device(const ImageUri& storage) noexcept;

/// Errors: in_use when the target is one of the source's layers under any name.
Result<void> refuse_same_storage(const std::vector<SourceLayer>& layers, const TargetState& target,
                                 const ImageUri& name);
/// Why a guest may not find its partitions on a raw target, whose blocks are larger than its disk's were;
/// empty where it will.
std::string sectors_unlike(CopyEngine::Devices devices, std::string_view target_format);
Error too_small(const ImageUri& target, std::uint64_t has_bytes, std::uint64_t needed_bytes);
/// A raw disk that is there and cannot be emptied: it is used as large as it is.
bool keeps_size(const TargetState& target, const CopyRequest& request) noexcept;
/// Before it is opened. Errors: too_large where it keeps its size, which is too small.
Result<void> refuse_too_small(const TargetState& target, const CopyRequest& request,
                              std::uint64_t needed_bytes);

/// As far as reading back costs next to nothing: all of what is written where a cache of this host or an NBD
/// server gives it back, samples where a storage server would have as much to do again.
VerifyLevel usual_verification(const ImageUri& target);

struct Tuning {
  PlanRules plan;
  EngineOptions engine;
};
/// `reactors`: threads that work on requests.
Tuning tune(const CopyRequest& request, CopyEngine::Devices devices, std::string_view target_format,
            std::size_t reactors);

/// The options that decide what a target holds, for the ledger.
std::string describe_options(const CopyRequest& request);

/// What files use of their storage, together; nullopt when one of them does not say.
Task<std::optional<std::uint64_t>> allocated_bytes(DriverContext& context, std::vector<ImageUri> images);

}  // namespace diskferry
