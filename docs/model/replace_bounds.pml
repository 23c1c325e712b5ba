/* How much happens at most. tests/model/model_test.py gives others. */
#ifndef DISKS
#define DISKS 2
#endif
#ifndef WRITES
#define WRITES 1 /* of each guest */
#endif
#ifndef KILLS
#define KILLS 1 /* of the gateway */
#endif
#ifndef CRASHES
#define CRASHES 0 /* of the machine */
#endif
#ifndef STORE_FAILS
#define STORE_FAILS 1 /* writes to the job database that fail */
#endif
#ifndef BEGIN_FAILS
#define BEGIN_FAILS 0 /* mirrors that cannot be put behind their export at the start */
#endif
#ifndef LOSSES
#define LOSSES 0 /* of the storage that follows */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0 /* changes of places that took too long, or were cancelled */
#endif
#ifndef EDITS
#define EDITS 0 /* the configuration names where the disk is, while the gateway is down */
#endif
