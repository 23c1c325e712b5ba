"""What happens to a move, one function each: event(place, job) does it, and brings back what it took away."""

import os
import pathlib
import signal
import subprocess
import time

import place as places
from processes import wait_until
from report import Failed, say

SHORT_CUT_SECONDS = 5
LONG_CUT_SECONDS = 45
DOWN_SECONDS = 2  # how long something that was ended stays away
START_SECONDS = 30  # until the target's machine is there


def _virsh(host, *words):
    """`virsh` by an operator who does not know of the move; what it says is part of the story, not a failure."""
    done = subprocess.run([*host.entry(), "virsh", "-q", "-c", "qemu:///system", *words], capture_output=True, text=True,
                          check=False, timeout=60, stdin=subprocess.DEVNULL)
    said = (done.stderr or done.stdout).strip().replace("\n", " ")
    say(f"virsh {' '.join(words)}: exit {done.returncode} {said}")
    return done.returncode == 0


# The phase bulk begins before libvirt has started the target's machine: who is to meet it waits until something was copied.


def _restart_gateway(place, host, end):
    end(host)
    time.sleep(DOWN_SECONDS)
    place.gateways.start(host)


def kill_source_gateway(place, _):
    _restart_gateway(place, place.bed.a, place.gateways.kill)


def kill_target_gateway(place, _):
    _restart_gateway(place, place.bed.b, place.gateways.kill)


def stop_source_gateway(place, _):
    _restart_gateway(place, place.bed.a, place.gateways.stop)


def stop_target_gateway(place, _):
    _restart_gateway(place, place.bed.b, place.gateways.stop)


def _restart_libvirtd(host):
    host.kill_libvirtd()
    time.sleep(DOWN_SECONDS)
    host.start_libvirtd()


def kill_source_libvirtd(place, _):
    _restart_libvirtd(place.bed.a)


def kill_target_libvirtd(place, _):
    _restart_libvirtd(place.bed.b)


def _kill_qemu(host, name):
    os.kill(wait_until(lambda: host.qemu_pid(name), f"a QEMU of {name} on {host}", START_SECONDS), signal.SIGKILL)


def kill_source_qemu(place, _):
    _kill_qemu(place.bed.a, place.vm.name)


def kill_target_qemu(place, job):
    job.wait_progress(1)
    _kill_qemu(place.bed.b, place.vm.name)


def kill_watch(_, job):
    """The command line goes away; the move is the gateway's."""
    job.close()


def cancel(place, job):
    place.bed.a.run(place.gateways.programs / "diskferry", "cancel", job.name)


def interrupt(place, job):
    """Ctrl-C at the command that asked for the move."""
    asked = job.command
    child = pathlib.Path(f"/proc/{asked.pid}/task/{asked.pid}/children").read_text(encoding="ascii").split()[0]
    os.kill(int(child), signal.SIGINT)
    code = asked.wait(90)
    said = asked.stderr.read().strip()
    say(f"diskferry migrate: exit {code}: {said}")
    if code != 5:
        raise Failed(f"an interrupted move ends with exit {code}: {said}")


def cut_shortly(place, _):
    place.bed.link_cut()
    time.sleep(SHORT_CUT_SECONDS)
    place.bed.link_restore()


def cut_at_resume(place, _):
    """The target was told to run, and nobody hears that it does: libvirt on the source lets its own run, too."""
    # Its console says so first, and the answer is on its way for as long as the link's delay.
    here = place.vm.acks[-1].connection
    wait_until(lambda: place.vm.acks[-1].connection != here, "the target's machine to run", places.BOOT_SECONDS)
    place.bed.link_cut()
    say(f"cut; the states are {place.states()}")
    time.sleep(LONG_CUT_SECONDS)
    say(f"the states are {place.states()}")
    place.bed.link_restore()


def cut_long(place, _):
    place.bed.link_cut()
    time.sleep(LONG_CUT_SECONDS)
    place.bed.link_restore()


def crash_target(place, _):
    """The target host loses its power, and comes back."""
    place.gateways.running.pop("b")
    place.bed.b.crash()
    time.sleep(DOWN_SECONDS)
    place.bed.start_host(place.bed.b)
    place.gateways.start(place.bed.b)


def fill_target(place, _):
    """Somebody else takes the space that the target was promised."""
    subprocess.run([*place.bed.b.entry(), "dd", "if=/dev/zero", f"of={places.SMALL}/filler", "bs=1M"], check=False,
                   capture_output=True, timeout=60)


def free_target(place):
    place.bed.b.run("rm", "-f", f"{places.SMALL}/filler")


def fill_target_shortly(place, job):
    """The guest may have moved by then: its hypervisor pauses it where there is no space, and its operator lets it go on."""
    fill_target(place, job)
    time.sleep(DOWN_SECONDS)
    free_target(place)
    place.bed.link()
    _resume(place)


def fail_store(place, _):
    place.bed.b.run("touch", places.STORE_FAILS)


def heal_store(place):
    place.bed.b.run("rm", "-f", places.STORE_FAILS)


def nothing(_, __):
    """What is wrong was wrong from the beginning (slow storage)."""


def virsh_destroy(place, _):
    _virsh(place.bed.a, "destroy", place.vm.name)


def virsh_destroy_target(place, job):
    job.wait_progress(1)
    if not _virsh(place.bed.b, "destroy", place.vm.name) and place.bed.b.qemu_pid(place.vm.name):
        raise Failed("the target's machine could not be destroyed")


def virsh_shutdown(place, _):
    """The guest has no program that listens to the button: what counts is that the move bears it."""
    _virsh(place.bed.a, "shutdown", place.vm.name)


def _resume(place):
    """The guest runs again, wherever it is by then."""
    def resumed():
        return any(place.vm.state(host) == "paused" and _virsh(host, "resume", place.vm.name) for host in place.bed.hosts) or \
            "running" in place.states().values()
    wait_until(resumed, "the resumption of a suspended guest", 60)


def virsh_suspend(place, _):
    """Suspended for a moment; resumed wherever it is by then."""
    if not _virsh(place.bed.a, "suspend", place.vm.name):
        return
    time.sleep(DOWN_SECONDS)
    place.bed.link()
    _resume(place)


def virsh_reset(place, _):
    """libvirt refuses it while the guest moves; afterwards it ends this guest, by its definition."""
    _virsh(place.bed.a, "reset", place.vm.name)


def virsh_save(place, _):
    _virsh(place.bed.a, "managedsave", place.vm.name)


def virsh_suspend_and_cancel(place, job):
    """Suspended by an operator, then the move is cancelled."""
    if _virsh(place.bed.a, "suspend", place.vm.name):
        cancel(place, job)


def virsh_attach_disk(place, _):
    place.bed.a.run("truncate", "-s", "1M", f"{places.IMAGES}/late.raw")
    _virsh(place.bed.a, "attach-disk", place.vm.name, f"{places.IMAGES}/late.raw", "vdc", "--live")


def virsh_blockresize(place, _):
    _virsh(place.bed.a, "blockresize", place.vm.name, "vda", "128M")


def virsh_snapshot(place, _):
    _virsh(place.bed.a, "snapshot-create-as", place.vm.name, "late", "--disk-only", "--no-metadata")
