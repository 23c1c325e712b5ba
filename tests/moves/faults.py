"""The table: what happens in which phase of a move, and where the guest must be afterwards.

A new case is a line here, and when needed a function in events.py. `SAMPLE` runs with every scripts/test.
"""

import dataclasses
import typing

import events

A, B = "a", "b"
EITHER = "either"  # libvirt decides; what counts is that it is one
GONE = "gone"      # whoever ends the guest ends it, on both hosts


@dataclasses.dataclass(frozen=True)
class Case:
    event: typing.Callable
    phase: str
    where: str
    status: tuple = ()       # how the job may end; (): any
    error: str = ""          # words that the first cause must have
    target: str = "raw"      # raw, qcow2, small (a file system of its own), store, slow-store
    heal: typing.Callable = None
    attached: bool = False   # with a `diskferry migrate` that waits

    @property
    def name(self):
        return f"{self.event.__name__.replace('_', '-')}.{self.phase}" + ("" if self.target == "raw" else f".{self.target}")


UNDONE = ("failed", "rolled-back")
MOVED = ("done",)

CASES = [
    Case(events.kill_source_gateway, "bulk", A, UNDONE),
    Case(events.kill_source_gateway, "delta", A, UNDONE),
    Case(events.kill_source_gateway, "synchronized", EITHER),
    Case(events.kill_source_gateway, "committed", B, MOVED),
    Case(events.kill_target_gateway, "bulk", B, MOVED),
    Case(events.kill_target_gateway, "bulk", EITHER, target="qcow2"),
    Case(events.kill_target_gateway, "delta", B, MOVED),
    Case(events.kill_target_gateway, "synchronized", EITHER),
    Case(events.stop_source_gateway, "bulk", A),
    Case(events.stop_source_gateway, "delta", A),
    Case(events.stop_target_gateway, "bulk", EITHER),
    Case(events.kill_source_libvirtd, "bulk", A, UNDONE),
    Case(events.kill_source_libvirtd, "delta", EITHER),
    Case(events.kill_target_libvirtd, "bulk", A, UNDONE),
    Case(events.kill_target_libvirtd, "delta", EITHER),
    Case(events.kill_source_qemu, "bulk", GONE, UNDONE),
    Case(events.kill_source_qemu, "delta", GONE, UNDONE),
    Case(events.kill_target_qemu, "bulk", A, UNDONE),
    Case(events.kill_target_qemu, "bulk", A, UNDONE, target="qcow2"),
    Case(events.kill_target_qemu, "delta", A, UNDONE),
    Case(events.kill_watch, "bulk", B, MOVED),
    Case(events.interrupt, "bulk", A, ("cancelled",), attached=True),
    Case(events.interrupt, "delta", A, ("cancelled",), attached=True),
    Case(events.cancel, "bulk", A, ("cancelled",), target="qcow2"),
    Case(events.cut_shortly, "bulk", EITHER),
    Case(events.cut_shortly, "delta", EITHER),
    Case(events.cut_shortly, "synchronized", EITHER),
    Case(events.cut_long, "bulk", A, UNDONE),
    Case(events.cut_long, "delta", EITHER),
    Case(events.cut_long, "synchronized", EITHER),
    Case(events.crash_target, "bulk", A, UNDONE),
    Case(events.crash_target, "delta", A, UNDONE),
    Case(events.fill_target, "bulk", A, UNDONE, error="No space left", target="small", heal=events.free_target),
    Case(events.fail_store, "bulk", A, UNDONE, target="store", heal=events.heal_store),
    Case(events.fail_store, "delta", A, UNDONE, target="store", heal=events.heal_store),
    Case(events.nothing, "bulk", B, MOVED, target="slow-store"),
    Case(events.virsh_destroy, "bulk", GONE, UNDONE),
    Case(events.virsh_destroy, "delta", GONE, UNDONE),
    Case(events.virsh_destroy_target, "bulk", A, UNDONE),
    Case(events.virsh_destroy_target, "delta", A, UNDONE),
    Case(events.virsh_shutdown, "bulk", EITHER),
    Case(events.virsh_suspend, "bulk", EITHER),
    Case(events.virsh_suspend, "delta", EITHER),
    Case(events.virsh_attach_disk, "bulk", EITHER),
    Case(events.virsh_blockresize, "bulk", EITHER),
    Case(events.virsh_snapshot, "bulk", EITHER),
]
BY_NAME = {case.name: case for case in CASES}
SAMPLE = ("kill-source-gateway.delta", "kill-target-gateway.bulk", "kill-target-qemu.delta", "interrupt.bulk",
          "fail-store.bulk.store")
