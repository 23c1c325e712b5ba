// Definitions for tests: those in data/ were written by libvirt 9.0 (a running machine with its migratable
// form, one with all kinds of devices, one with all kinds of network storage), the others are as small as can
// be.
#pragma once

#include "gateway/hypervisor/domain_xml.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

namespace diskferry::test {

inline std::string domain_file(const std::string& name) {
  std::ifstream file(std::string(DOMAIN_XML_FOLDER "/") + name);
  if (!file) throw std::runtime_error("no test data " + name);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A domain with these devices, laid out as libvirt does.
inline std::string domain_with(const std::string& devices) {
  return "<domain type='kvm'>\n  <name>t</name>\n  <devices>\n" + devices + "  </devices>\n</domain>\n";
}

inline VmDescription read(const std::string& xml) {
  auto vm = read_domain(xml);
  if (!vm) throw std::runtime_error(vm.error().message());
  return *std::move(vm);
}

inline const VmDisk& disk_of(const VmDescription& vm, const std::string& target) {
  const auto found = std::ranges::find(vm.disks, target, &VmDisk::target);
  if (found == vm.disks.end()) throw std::runtime_error("no disk " + target);
  return *found;
}

/// How a table's row shows in a test's name and in its failures.
template <class Row>
std::string row_name(const testing::TestParamInfo<Row>& info) {
  return info.param.name;
}

}  // namespace diskferry::test
