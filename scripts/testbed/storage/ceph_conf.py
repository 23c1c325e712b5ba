"""ceph.conf of a cluster of one monitor and one OSD that starts in two seconds. Each setting that is not what Ceph does by
itself is here because of a measurement or a trap, told beside it.
"""

# The mgr's python modules cost 270 MiB and start slowly; quotas and `ceph df` need none of them.
MGR_MODULES = ("alerts balancer crash devicehealth diskprediction_local influx insights iostat k8sevents localpool "
               "mds_autoscaler mirroring nfs orchestrator osd_perf_query osd_support pg_autoscaler progress prometheus "
               "rbd_support restful selftest snap_schedule stats status telegraf telemetry test_orchestrator volumes zabbix")

CONF = """\
[global]
fsid = {fsid}
mon host = [v2:{address}:{port}]
public addr = {address}
cluster addr = {address}
ms bind ipv6 = false
ms bind port min = {port_min}
ms bind port max = {port_max}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/$cluster.$name.keyring
run dir = {folder}/run
admin socket =
log file = {folder}/log/$name.log
mon cluster log file = {folder}/log/cluster.log
crash dir = {folder}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon warn on insecure global id reclaim = false
mon warn on insecure global id reclaim allowed = false

[client]
# Clients must not write the daemons' log and socket files.
log file =
admin socket =

[mon]
admin socket = {folder}/run/$name.asok
# Without it the monitor says "disabling cephx".
keyring = {folder}/mon/keyring
mon data = {folder}/mon
# A map change waits up to 1 s by default; a start makes about six of them.
paxos propose interval = 0.02
mon osd full ratio = {full}
mon osd backfillfull ratio = {backfillfull}
mon osd nearfull ratio = {nearfull}
# The flags "full" and "quota reached" are worked out in this tick.
mon tick interval = 1
mon data avail warn = 1
mon data avail crit = 1
mon rocksdb options = write_buffer_size=8388608,compression=kNoCompression

[mgr]
admin socket = {folder}/run/$name.asok
mgr data = {folder}/mgr
mgr initial modules =
mgr disabled modules = {mgr_modules}
mgr stats period = 1
mgr tick period = 1

[osd]
admin socket = {folder}/run/$name.asok
osd data = {folder}/osd
osd objectstore = bluestore
osd class update on start = false
osd max backfills = 1
osd op num shards = 2
osd op num threads per shard = 1
osd memory target = 939524096
bluestore block size = {size}
bluestore cache autotune = false
bluestore cache size = 67108864
# Virtual disks often say that they rotate: take the same path everywhere.
bluestore debug enforce settings = ssd
# Each open and close of the block file joins the aio thread, which polls at this interval (default 250 ms: mkfs 2.2 s
# instead of 0.2 s, and the OSD a second later).
bdev aio poll ms = 10
# Past it the OSD drops updates; the full ratio must stay well below.
osd failsafe full ratio = 0.98
osd mon report interval = 1
# Whether the OSD is full is looked at in the heartbeat's tick: a long one lets more through past the full ratio.
osd heartbeat interval = 1
osd mon heartbeat stat stale = 30
"""


def write(path, folder, address, port, ports, fsid, size, full_ratio):  # pylint: disable=too-many-arguments
    """`port` is the monitor's; OSD and mgr take theirs from the `ports` - 1 that follow it."""
    path.write_text(CONF.format(folder=folder, address=address, port=port, port_min=port + 1, port_max=port + ports - 1, fsid=fsid,
                                size=size, full=full_ratio, backfillfull=full_ratio - 0.01, nearfull=full_ratio - 0.02,
                                mgr_modules=MGR_MODULES), encoding="utf-8")
