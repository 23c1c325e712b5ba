"""portmapper.py ADDRESS NFS_PORT MOUNT_PORT: a portmapper (RFC 1833, read only) on port 111 of one loopback address.

Clients that cannot be told ports (QEMU's nfs driver) ask port 111. The real rpcbind listens on every address, and 1.2.6
aborts when it is given one; with this, several servers live side by side on addresses of their own.
"""

import asyncio
import struct
import sys

PORTMAPPER, NFS, MOUNT = 100000, 100003, 100005
PORT = 111
CALL_BYTES_MAX = 65536
TCP = 6  # IPPROTO_TCP, as version 2 writes it
# accept_stat of RFC 5531
SUCCESS, PROG_UNAVAIL, PROG_MISMATCH, PROC_UNAVAIL = 0, 1, 2, 3
NULL, GETPORT, DUMP = 0, 3, 4


def words(*values):
    return struct.pack(f">{len(values)}I", *values)


def text(value):
    data = value.encode()
    return words(len(data)) + data + b"\0" * (-len(data) % 4)


class Portmapper:
    """Answers calls from a table of what the server has."""

    def __init__(self, address, nfs_port, mount_port):
        self.address = address
        self.table = {(NFS, 3): nfs_port, (NFS, 4): nfs_port, (MOUNT, 1): mount_port, (MOUNT, 3): mount_port,
                      (PORTMAPPER, 2): PORT}

    def answer(self, call):
        """The reply to an RPC message, or None when it is no call. Raises struct.error when it is cut off."""
        transaction, is_reply, _, program, version, procedure = struct.unpack_from(">6I", call)
        if is_reply:
            return None
        offset = 24
        for _ in ("credentials", "verifier"):
            _, length = struct.unpack_from(">2I", call, offset)
            offset += 8 + (length + 3) // 4 * 4
        return words(transaction, 1, 0, 0, 0) + self._result(program, version, procedure, call[offset:])

    def _result(self, program, version, procedure, arguments):
        if program != PORTMAPPER:
            return words(PROG_UNAVAIL)
        if version not in (2, 3, 4):
            return words(PROG_MISMATCH, 2, 4)
        if procedure == NULL:
            return words(SUCCESS)
        if procedure == GETPORT:  # GETADDR in versions 3 and 4
            wanted = struct.unpack_from(">2I", arguments)
            port = self.table.get(wanted, 0)
            if version > 2:
                return words(SUCCESS) + text(self._universal(port) if port else "")
            protocol, = struct.unpack_from(">I", arguments, 8)
            return words(SUCCESS, port if protocol == TCP else 0)
        if procedure == DUMP:
            return words(SUCCESS) + b"".join(self._entry(version, one, port) for one, port in self.table.items()) + words(0)
        return words(PROC_UNAVAIL)

    def _entry(self, version, one, port):
        if version == 2:
            return words(1, *one, TCP, port)
        return words(1, *one) + text("tcp") + text(self._universal(port)) + text("superuser")

    def _universal(self, port):
        return f"{self.address}.{port >> 8}.{port & 255}"

    async def serve(self, reader, writer):
        try:
            while True:
                call, is_last = b"", False
                while not is_last:
                    mark, = struct.unpack(">I", await reader.readexactly(4))
                    is_last, length = bool(mark >> 31), mark & 0x7FFFFFFF
                    if len(call) + length > CALL_BYTES_MAX:
                        return
                    call += await reader.readexactly(length)
                if (reply := self.answer(call)) is not None:
                    writer.write(words(1 << 31 | len(reply)) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, struct.error):
            pass
        finally:
            writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """The same over UDP."""

    def __init__(self, portmapper):
        self.portmapper = portmapper
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        try:
            reply = self.portmapper.answer(data)
        except struct.error:
            return
        if reply is not None:
            self.transport.sendto(reply, addr)


async def main():
    address, nfs_port, mount_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    portmapper = Portmapper(address, nfs_port, mount_port)
    server = await asyncio.start_server(portmapper.serve, address, PORT)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagrams(portmapper), local_addr=(address, PORT))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
