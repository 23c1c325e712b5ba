"""The storages of the fault cases: each a real server of the testbed with what the cases need of it. A new storage is a class in
a file of its own and a line in STORAGES.

`make_room` is for a target that we cannot create; `write` and `read` make a volume of a file and a file of a volume without
diskferry, by a program that is not ours or in the server's own files; URIs are diskferry's own. `refusals` yields what it is, the
URI of a volume to write to and a text that the error must have, after what makes it so was done; `missing` is a source that is not
there; `second_name` is another URI of the same volume.
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "testbed")]

from ceph_storage import RbdStorage  # noqa: E402
from gluster_storage import GlusterStorage  # noqa: E402
from iscsi_storage import IscsiStorage  # noqa: E402
from nfs_storage import NfsStorage  # noqa: E402

STORAGES = {one.name: one for one in (NfsStorage, IscsiStorage, RbdStorage, GlusterStorage)}
