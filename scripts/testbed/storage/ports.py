"""Free ports and loopback addresses for servers that keep them over restarts."""

import pathlib
import random
import socket

from report import Failed

# Below what the kernel hands out for outgoing connections (32768 and up by default): a stopped server finds its port free.
FIRST, LAST = 10000, 29999
TRIES = 200


def is_free(address, port):
    """Whether a TCP server could listen there now; connections that linger in TIME_WAIT are no hindrance."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def answers(address, port):
    """Whether somebody takes a connection there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def answers_on_socket(path):
    """Whether somebody takes a connection on this UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def free_port(address, count=1):
    """The first of `count` consecutive free ports, at a place nobody else is likely to choose at the same moment."""
    text = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    last = min(LAST, int(text.split()[0]) - 1) - count
    if last < FIRST:
        raise Failed(f"no ports below those for outgoing connections, which begin at {text.split()[0]}")
    for _ in range(TRIES):
        port = random.randint(FIRST, last)
        if all(is_free(address, port + more) for more in range(count)):
            return port
    raise Failed(f"no free port on {address}")


def free_address(port):
    """A loopback address of one's own on which the given well-known port is free (0: it needs none). Linux answers on all of
    127.0.0.0/8."""
    for _ in range(TRIES):
        address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
        if is_free(address, port):
            return address
    raise Failed(f"port {port} is taken on every loopback address: does a server listen on 0.0.0.0:{port}?")
