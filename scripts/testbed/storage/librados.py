"""One write by librados in the way that diskferry writes: with the flag that makes a full cluster an error and not a wait.

Debian's tools have no option for it. Run as a program, because a client of a cluster that hangs never ends:

    librados.py CONF USER POOL OBJECT      prints the errno, 0 when it was written
"""

import ctypes
import sys


def main():
    conf, user, pool, name = (word.encode() for word in sys.argv[1:])
    rados = ctypes.CDLL("librados.so.2")
    cluster, context = ctypes.c_void_p(), ctypes.c_void_p()
    data = bytes(4096)
    for step in (lambda: rados.rados_create(ctypes.byref(cluster), user),
                 lambda: rados.rados_conf_read_file(cluster, conf),
                 lambda: rados.rados_connect(cluster),
                 lambda: rados.rados_ioctx_create(cluster, pool, ctypes.byref(context))):
        if code := step():
            print(-code)
            return
    rados.rados_set_pool_full_try(context)
    print(-rados.rados_write(context, name, data, ctypes.c_size_t(len(data)), ctypes.c_uint64(0)))
    rados.rados_ioctx_destroy(context)
    rados.rados_shutdown(cluster)


if __name__ == "__main__":
    main()
