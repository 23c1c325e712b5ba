"""The wire between the two hosts: its rate, its delay, and cutting it. Both ends are treated alike.

Rate: tbf. Delay: netem, or where the kernel has none, a program (delay_line.c) that every frame is redirected through.
A cut: a queue too short for any packet.
"""

import os
import pathlib
import signal
import subprocess

from processes import run, wait_until
from report import Failed

WIRE = "veth0"
LINE = "delay0"  # made by delay_line.c
# What waits for its turn at a limited rate: enough that TCP fills the wire, little enough that it does not wait for seconds.
QUEUE_MS = 100
BURST_BYTES = 256 * 1024
# Packets that netem or the line's device hold: 100 ms at 1 Gbit/s are 8000.
PACKETS_MAX = 16384
SOURCE = pathlib.Path(__file__).resolve().parent / "delay_line.c"


def connect(hosts):
    """Joins two hosts that are not joined."""
    first, second = hosts
    _ip(first, "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", second.pid)
    for host in hosts:
        _ip(host, "addr", "add", f"{host.address}/30", "dev", WIRE)
        _ip(host, "link", "set", WIRE, "up")


def shape(hosts, mbit=None, delay_ms=None, is_fast=False):
    """Sets the rate in Mbit/s and the delay in ms of each direction; None is without a limit. Ends a cut. `is_fast`: a delay line
    carries 2 GB/s rather than 0.25, in frames that no real wire has."""
    clear(hosts)
    device, parent = WIRE, ["root"]
    if delay_ms and all(_add_netem(host, delay_ms) for host in hosts):
        parent = ["parent", "1:"]
    elif delay_ms:
        _insert_line(hosts, delay_ms, is_fast)
        device = LINE
    for host in hosts if mbit else ():
        _tc(host, "qdisc", "add", "dev", device, *parent, "handle", "2:", "tbf", "rate", f"{mbit}mbit", "burst", BURST_BYTES,
            "latency", f"{QUEUE_MS}ms")


def cut(hosts):
    """Drops every packet without a word to anyone: the devices stay up, as when a switch fails."""
    clear(hosts)
    for host in hosts:
        _tc(host, "qdisc", "add", "dev", WIRE, "root", "bfifo", "limit", 1)


def clear(hosts):
    """The bare wire."""
    for host in hosts:
        queues = _tc(host, "qdisc", "show", "dev", WIRE)
        if "clsact" in queues:
            _tc(host, "qdisc", "del", "dev", WIRE, "clsact")
        if "qdisc noqueue" not in queues:
            _tc(host, "qdisc", "del", "dev", WIRE, "root")
    remove_line(hosts)


def remove_line(hosts):
    """Ends the delay line. It belongs to one host and holds the network of the other one too, so it has to go before a host
    is brought back."""
    for host in hosts:
        if host.is_up() and (pid := host.find_pid("delay_line")):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda gone=pid: not os.path.exists(f"/proc/{gone}"), "the end of the delay line")


def sent_bytes(host, devices=(WIRE, LINE)):
    """The bytes, with all headers, that this end has sent since its devices were made."""
    total = 0
    for line in pathlib.Path(f"/proc/{host.pid}/net/dev").read_text(encoding="utf-8").splitlines():
        device, _, numbers = line.strip().partition(":")
        if device in devices:
            total += int(numbers.split()[8])
    return total


def _add_netem(host, delay_ms):
    try:
        _tc(host, "qdisc", "add", "dev", WIRE, "root", "handle", "1:", "netem", "delay", f"{delay_ms}ms", "limit", PACKETS_MAX)
    except Failed as failure:
        if "qdisc kind is unknown" in str(failure):
            return False
        raise
    return True


def _insert_line(hosts, delay_ms, is_fast):
    """Starts the delay line, and redirects what each host sends to its end of the line and what comes out of the line to the
    wire's device, as if it had come from there: addresses, routes and connections stay."""
    first, second = hosts
    program = first.folder.parent / "delay_line"
    run("gcc", "-O2", "-Wall", "-o", program, SOURCE)
    other = os.open(f"/proc/{second.pid}/ns/net", os.O_RDONLY)
    try:
        # In the first host's PID namespace, so that it ends with the host at the latest.
        words = [program, str(other), str(delay_ms), *(["large"] if is_fast else [])]
        subprocess.run([*first.entry(), *words], pass_fds=[other], check=True, timeout=20,
                       capture_output=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as failure:
        raise Failed(f"the delay line does not start: {failure.stderr.decode()}") from None
    finally:
        os.close(other)
    everything = ("protocol", "all", "u32", "match", "u32", 0, 0, "action", "mirred")
    for host in hosts:
        address = pathlib.Path(f"/proc/{host.pid}/root/sys/class/net/{WIRE}/address").read_text(encoding="ascii").strip()
        _ip(host, "link", "set", LINE, "address", address, "addrgenmode", "none", "txqueuelen", PACKETS_MAX)
        _ip(host, "link", "set", LINE, "up")
        _tc(host, "qdisc", "add", "dev", LINE, "clsact")
        _tc(host, "filter", "add", "dev", LINE, "ingress", *everything, "ingress", "redirect", "dev", WIRE)
    for host in hosts:
        _tc(host, "qdisc", "add", "dev", WIRE, "clsact")
        _tc(host, "filter", "add", "dev", WIRE, "egress", *everything, "egress", "redirect", "dev", LINE)


def _ip(host, *words):
    return run("nsenter", f"--net=/proc/{host.pid}/ns/net", "ip", *words)


def _tc(host, *words):
    return run("nsenter", f"--net=/proc/{host.pid}/ns/net", "tc", *words)
