// What a machine gets on a host that is not the one it was made for.
#include "gateway/move/machine_fit.hpp"

#include "tests/support/test_runtime.hpp"
#include "tests/unit/move/preflight_facts.hpp"

namespace diskferry::test {
namespace {

TEST(MachineFit, CpusAreModesOrModels) {
  EXPECT_EQ(must(cpu_xml_of("")), "");
  EXPECT_EQ(must(cpu_xml_of("host-model")), "<cpu mode='host-model'/>");
  EXPECT_EQ(must(cpu_xml_of("Skylake-Server-v4")),
            "<cpu mode='custom' match='exact'><model fallback='forbid'>Skylake-Server-v4</model></cpu>");
  for (const std::string_view text : {"a b", "<cpu/>", "a'b", "a\"", "a&b"})
    EXPECT_FALSE(cpu_xml_of(text)) << text;
  EXPECT_FALSE(cpu_xml_of(std::string(65, 'a')));
}

TEST(MachineFit, RelatedTypesAreThoseOfTheSameKindInTheirOrder) {
  const GuestSupport known{.machines = {{"pc-q35-10.0", 0},
                                        {"pc-q35-7.2", 0},
                                        {"pc-q35-7.10", 0},
                                        {"pc-i440fx-7.2", 0},
                                        {"q35", 0},
                                        {"none", 0}}};
  EXPECT_EQ(related_machine_types("pc-q35-9.0", known),
            (std::vector<std::string>{"pc-q35-7.2", "pc-q35-7.10", "pc-q35-10.0"}));
  EXPECT_TRUE(related_machine_types("q35", known).empty());
  EXPECT_TRUE(related_machine_types("", known).empty());
}

struct Row {
  std::string name;
  MachineChoice choice;
  void (*spoil)(VmDescription&, HostFacts&);
  std::string emulator, machine, cpu;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}
class FitToHost : public testing::TestWithParam<Row> {};
TEST_P(FitToHost, ChangesThis) {
  VmDescription machine = good_facts().machine;
  HostFacts host = good_host("b");
  GetParam().spoil(machine, host);
  DomainRewrite changes;
  must(fit_to_host(machine, host, GetParam().choice, changes));
  EXPECT_EQ(changes.emulator, GetParam().emulator);
  EXPECT_EQ(changes.machine, GetParam().machine);
  EXPECT_EQ(changes.cpu_xml, GetParam().cpu);
  EXPECT_EQ(changes.host_cpus, host.cpus);
}
INSTANTIATE_TEST_SUITE_P(Hosts, FitToHost,
                         testing::Values(Row{"the_same", {}, [](VmDescription&, HostFacts&) {}, "", "", ""},
                                         Row{"qemu_is_elsewhere",
                                             {},
                                             [](VmDescription& machine, HostFacts&) {
                                               machine.emulator = "/usr/libexec/qemu-kvm";
                                             },
                                             "/usr/bin/qemu-system-x86_64",
                                             "",
                                             ""},
                                         Row{"chosen",
                                             {.machine_type = "q35", .cpu = "maximum"},
                                             [](VmDescription&, HostFacts&) {},
                                             "",
                                             "q35",
                                             "<cpu mode='maximum'/>"},
                                         Row{"a_host_that_says_nothing",
                                             {},
                                             [](VmDescription& machine, HostFacts& host) {
                                               machine.emulator = "/usr/libexec/qemu-kvm";
                                               host.guests.clear();
                                             },
                                             "",
                                             "",
                                             ""},
                                         Row{"of_two_the_one_that_knows_the_chosen_type",
                                             {.machine_type = "virt-7.2"},
                                             [](VmDescription& machine, HostFacts& host) {
                                               machine.emulator = "/usr/libexec/qemu-kvm";
                                               host.guests.push_back({.architecture = "x86_64",
                                                                      .domain_type = "kvm",
                                                                      .emulator = "/opt/qemu",
                                                                      .machines = {{"virt-7.2", 0}}});
                                             },
                                             "/opt/qemu",
                                             "virt-7.2",
                                             ""}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace diskferry::test
