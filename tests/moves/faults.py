"""The table: what happens in which phase of a move, and where the guest must be afterwards.

A new case is a line here, and when needed a function in events.py. CMakeLists.txt names those of every scripts/test.
"""

import dataclasses
import typing

import events

A, B = "a", "b"
EITHER = "either"  # libvirt decides; what counts is that it is one
GONE = "gone"      # whoever ends the guest ends it, on both hosts
ANY = "any"        # who ends the guest may come too late


@dataclasses.dataclass(frozen=True)
class Case:
    event: typing.Callable
    phase: str
    where: str
    status: tuple = ()       # how the job may end; (): any
    error: str = ""          # words that the first cause must have
    target: str = "raw"      # raw, qcow2, small (a file system of its own), store, slow-store, two, two-store
    heal: typing.Callable = None
    delay_ms: int = None     # of the link, which then has no other limit: an answer on its way can be met
    twice: bool = False      # the source ran for a moment beside the target: writes it acknowledged were made again
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
    # What was not flushed when a gateway ended may be lost: the flush says so, unless all was written again.
    Case(events.kill_target_gateway, "delta", EITHER),
    Case(events.kill_target_gateway, "synchronized", EITHER),
    Case(events.kill_target_gateway, "committed", B, MOVED),
    Case(events.stop_source_gateway, "bulk", A),
    Case(events.stop_source_gateway, "delta", A),
    Case(events.stop_source_gateway, "synchronized", EITHER),
    Case(events.stop_target_gateway, "bulk", EITHER),
    Case(events.stop_target_gateway, "delta", EITHER),
    Case(events.stop_target_gateway, "synchronized", EITHER),
    Case(events.kill_source_libvirtd, "bulk", A, UNDONE),
    Case(events.kill_source_libvirtd, "delta", EITHER),
    Case(events.kill_source_libvirtd, "synchronized", EITHER),
    Case(events.kill_source_libvirtd, "committed", B, MOVED),
    Case(events.kill_target_libvirtd, "bulk", A, UNDONE),
    Case(events.kill_target_libvirtd, "delta", EITHER),
    # QEMU 7.2 can end by itself when it is told to cancel in its device phase, which libvirt does when it loses the other one.
    Case(events.kill_target_libvirtd, "synchronized", ANY),
    Case(events.kill_target_libvirtd, "committed", B, MOVED),
    Case(events.kill_source_qemu, "bulk", GONE, UNDONE, error="on host-a the guest ended"),
    Case(events.kill_source_qemu, "delta", GONE, UNDONE, error="on host-a the guest ended"),
    Case(events.kill_source_qemu, "synchronized", ANY),
    Case(events.kill_target_qemu, "bulk", A, UNDONE, error="on host-b for the guest"),
    Case(events.kill_target_qemu, "bulk", A, UNDONE, target="qcow2"),
    Case(events.kill_target_qemu, "delta", A, UNDONE),
    Case(events.kill_target_qemu, "synchronized", ANY),
    Case(events.kill_watch, "bulk", B, MOVED),
    Case(events.kill_watch, "delta", B, MOVED),
    Case(events.kill_watch, "synchronized", B, MOVED),
    Case(events.interrupt, "bulk", A, ("cancelled",), attached=True),
    Case(events.interrupt, "delta", A, ("cancelled",), attached=True),
    Case(events.cancel, "synchronized", EITHER),
    Case(events.cancel, "bulk", A, ("cancelled",), target="qcow2"),
    Case(events.cut_shortly, "bulk", EITHER),
    Case(events.cut_shortly, "delta", EITHER),
    Case(events.cut_shortly, "synchronized", EITHER),
    Case(events.cut_shortly, "committed", B, MOVED),
    Case(events.cut_at_resume, "delta", B, MOVED, delay_ms=400, twice=True),
    Case(events.cut_long, "bulk", A, UNDONE),
    Case(events.cut_long, "delta", EITHER),
    Case(events.cut_long, "synchronized", EITHER),
    Case(events.cut_long, "committed", B, MOVED),
    Case(events.crash_target, "bulk", A, UNDONE),
    Case(events.crash_target, "delta", A, UNDONE),
    Case(events.crash_target, "synchronized", ANY),
    Case(events.fill_target, "bulk", A, UNDONE, error="No space left", target="small", heal=events.free_target),
    # What is written anew has its space already: only what was a hole until then needs some.
    Case(events.fill_target, "delta", EITHER, target="small", heal=events.free_target),
    Case(events.fill_target_shortly, "synchronized", EITHER, target="small"),
    Case(events.fail_store, "bulk", A, UNDONE, target="store", heal=events.heal_store),
    Case(events.fail_store, "delta", A, UNDONE, target="store", heal=events.heal_store),
    # From then on a store that fails is the guest's own: it sees the errors, as it would without a move.
    Case(events.nothing, "bulk", B, MOVED, target="slow-store"),
    Case(events.nothing, "bulk", B, MOVED, target="two"),
    Case(events.kill_target_gateway, "bulk", B, MOVED, target="two"),
    Case(events.fail_store, "delta", A, UNDONE, error="target of vdb", target="two-store", heal=events.heal_store),
    Case(events.virsh_destroy, "bulk", GONE, UNDONE, error="on host-a the guest was destroyed"),
    Case(events.virsh_destroy, "delta", GONE, UNDONE, error="on host-a the guest was destroyed"),
    Case(events.virsh_destroy, "synchronized", ANY),
    Case(events.virsh_destroy_target, "synchronized", ANY),
    Case(events.virsh_destroy_target, "bulk", A, UNDONE, error="host-b for the guest was destroyed"),
    Case(events.virsh_destroy_target, "delta", A, UNDONE, error="host-b for the guest was destroyed"),
    Case(events.virsh_shutdown, "bulk", EITHER),
    Case(events.virsh_shutdown, "delta", EITHER),
    Case(events.virsh_shutdown, "synchronized", EITHER),
    Case(events.virsh_reset, "bulk", EITHER),
    Case(events.virsh_reset, "delta", EITHER),
    Case(events.virsh_reset, "synchronized", ANY),
    Case(events.virsh_suspend, "bulk", EITHER),
    Case(events.virsh_suspend, "delta", EITHER),
    Case(events.virsh_suspend, "synchronized", EITHER),
    Case(events.virsh_suspend_and_cancel, "delta", A, ("cancelled",)),
    Case(events.virsh_attach_disk, "bulk", EITHER),
    Case(events.virsh_attach_disk, "delta", EITHER),
    Case(events.virsh_attach_disk, "synchronized", EITHER),
    Case(events.virsh_blockresize, "bulk", EITHER),
    Case(events.virsh_blockresize, "delta", EITHER),
    Case(events.virsh_blockresize, "synchronized", EITHER),
    Case(events.virsh_snapshot, "bulk", EITHER),
    Case(events.virsh_snapshot, "delta", EITHER),
    Case(events.virsh_snapshot, "synchronized", EITHER),
    Case(events.virsh_save, "bulk", EITHER),
    Case(events.virsh_save, "delta", EITHER),
]
BY_NAME = {case.name: case for case in CASES}
