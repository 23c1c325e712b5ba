// What the files of rules share; internal to preflight.
#pragma once

#include "gateway/move/preflight.hpp"

#include <span>

namespace diskferry {

/// Where rules put what they find. Names in the texts may be hostile: they are made safe here, once.
class Findings {
 public:
  void block(std::string code, std::string subject, std::string text, std::string remedy);
  void warn(std::string code, std::string subject, std::string text, std::string remedy);
  void note(std::string code, std::string subject, std::string text);
  /// Blockers first, then warnings, then notes; within each as they were found.
  std::vector<Finding> take();

 private:
  void add(Severity severity, std::string code, std::string subject, std::string text, std::string remedy);
  std::vector<Finding> all_{};
};

using Rule = void (*)(const PreflightFacts& facts, Findings& found);
std::span<const Rule> host_rules() noexcept;
std::span<const Rule> machine_rules() noexcept;
std::span<const Rule> device_rules() noexcept;
std::span<const Rule> disk_rules() noexcept;
std::span<const Rule> target_disk_rules() noexcept;
std::span<const Rule> option_rules() noexcept;
std::span<const Rule> through_rules() noexcept;

/// Host part of a name, so that "b" and "b.example.org" are the same.
std::string first_label(const std::string& name);
bool has_medium(const VmDisk& disk) noexcept;
/// The hypervisor is to copy any disk.
bool copies_disks(const PreflightFacts& facts) noexcept;
bool contains(const std::vector<std::string>& names, const std::string& name) noexcept;
/// What an error says can be done, else `fallback`.
std::string remedy_of(const Error& error, std::string fallback);

}  // namespace diskferry
