"""The wire between the two hosts: its rate, its delay, and cutting it. Both ends are treated alike."""

import pathlib

from processes import run
from report import Failed

DEVICE = "veth0"
# What waits for its turn at a limited rate: enough that TCP fills the wire, little enough that it does not wait for seconds.
QUEUE_MS = 100
BURST_BYTES = 256 * 1024


def connect(ends):
    """Joins two hosts. `ends` are two pairs of (first process, address with prefix length)."""
    (first, _), (second, _) = ends
    run("nsenter", f"--net=/proc/{first}/ns/net", "ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE,
        "netns", second)
    for pid, address in ends:
        _ip(pid, "addr", "add", address, "dev", DEVICE)
        _ip(pid, "link", "set", DEVICE, "up")


def shape(pid, mbit=None, delay_ms=None):
    """Sets one end's rate in Mbit/s and its delay in ms; None is without a limit."""
    clear(pid)
    parent = ["root"]
    if delay_ms:
        try:
            _tc(pid, "add", "root", "handle", "1:", "netem", "delay", f"{delay_ms}ms", "limit", 50000)
        except Failed as failure:
            raise Failed(f"this kernel delays no packets (it needs sch_netem): {failure}") from None
        parent = ["parent", "1:"]
    if mbit:
        _tc(pid, "add", *parent, "handle", "2:", "tbf", "rate", f"{mbit}mbit", "burst", BURST_BYTES, "latency", f"{QUEUE_MS}ms")


def cut(pid):
    """Drops every packet that this end sends, without a word to anyone: the devices stay up, as when a switch fails."""
    clear(pid)
    _tc(pid, "add", "root", "bfifo", "limit", 1)


def clear(pid):
    if "qdisc noqueue" not in _tc(pid, "show"):
        _tc(pid, "del", "root")


def sent_bytes(pid):
    """The bytes, with all headers, that this end has sent since it was connected."""
    for line in pathlib.Path(f"/proc/{pid}/net/dev").read_text(encoding="utf-8").splitlines():
        device, _, numbers = line.strip().partition(":")
        if device == DEVICE:
            return int(numbers.split()[8])
    raise Failed(f"no {DEVICE} in the network of process {pid}")


def _ip(pid, *words):
    return run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words)


def _tc(pid, verb, *words):
    return run("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc", verb, "dev", DEVICE, *words)
