/* The commit protocol of `diskferry replace`, for spin. README.md beside it says which code each part stands
 * for, what is left out, and how to read a counterexample. The bounds and the breaks are macros (-D).
 *
 * A step of the gateway is one `atomic`. Between two steps it can be killed, and so can the machine. */

#include "replace_bounds.pml"

#define S 0 /* the old storage */
#define T 1 /* the new one */
#define OTHER(side) (1 - (side))

mtype = { delta, switching, committed, retained, released, aborting, aborted }; /* phase.hpp */
mtype = { down, take_up, left, late, late_put, go, attach, follow, halt, paused, hold, copy_rest, make_durable,
          record, record_again, switch_over, let_go, back, undo, end_detach, end_unmap, end_put, end_remove,
          end_phase, note_end, over }; /* where the job is */
mtype = { idle, begun, written }; /* a guest's write; a copy; a checkpoint */
mtype = { missing, clean, differs }; /* the file of what differs, of one granule */

/* --- the storages: one granule of each disk. What was not flushed can be lost. --- */
typedef Cells { byte now[DISKS]; byte durable[DISKS] };
Cells storage[2];
bool is_removed[2];

/* --- the job database: what this process sees, what is on the disk, and a write that failed and may be found --- */
typedef Record { mtype phase = delta; bit side = S; bit configured = S; bool is_active = true };
Record seen, kept, ghost;
bool has_ghost;
bool is_saved;          /* of the last save */
bit configuration = S;  /* the image that the configuration names now */

/* --- the gateway process; all of it is gone when it is killed --- */
mtype job = down;
mtype phase = delta, next;
byte disk; /* of the steps that go from disk to disk */
bit charge = S; /* ReplaceState::switchovers: odd is T */
bool is_serving, is_late;
bit side[DISKS]; /* the primary */
bool is_held[DISKS];
bool has_mirror[DISKS], has_target[DISKS], target_failed[DISKS];
bool dirty[DISKS], unsettled[DISKS], flushing[DISKS]; /* DifferenceMap */
mtype copy[DISKS] = idle, checkpoint[DISKS] = idle;
byte copied[DISKS], flushed_value[DISKS];
mtype request[DISKS] = idle; /* a guest's write, on its way */
bool is_told[DISKS], is_overtaken[DISKS], is_through_mirror[DISKS];

mtype map[DISKS] = missing; /* the file: outlives the process, and is not believed after the machine was down */

/* --- guests --- */
byte last[DISKS];         /* every write has a value of its own: the last one */
byte asked[DISKS];        /* not acknowledged yet, and sent again after a reconnect; 0: none */
byte acknowledged[DISKS], flushed[DISKS];

/* --- what must hold --- */
bit in_force = S;    /* where guests were let go on last */
bool is_recording;   /* a change of places is being recorded, and guests are held since */
bool machine_was_down;

byte kills = KILLS, crashes = CRASHES, store_fails = STORE_FAILS, begin_fails = BEGIN_FAILS, losses = LOSSES,
     timeouts = TIMEOUTS, edits = EDITS;
byte i; /* of EACH */

#define FOLLOWER(d) storage[OTHER(side[d])]
#define PRIMARY(d) storage[side[d]]
#define NOTE(d) if :: map[d] == clean -> map[d] = differs :: else fi
#define EACH for (i : 0 .. DISKS - 1)

/* JobDatabase::update. An error: nothing was written; or it may be found; or it was written, and only telling
 * so failed. */
inline put_record(record_, phase_, side_, configured_, is_active_) {
  d_step { record_.phase = phase_; record_.side = side_; record_.configured = configured_; record_.is_active = is_active_ }
}
inline forget_ghost() { has_ghost = false; put_record(ghost, delta, S, S, true) }
inline write_both(phase_, side_, configured_, is_active_) {
  put_record(seen, phase_, side_, configured_, is_active_);
  put_record(kept, phase_, side_, configured_, is_active_);
  forget_ghost()
}
inline save(phase_, side_, configured_, is_active_) {
  if
  :: write_both(phase_, side_, configured_, is_active_); is_saved = true
  :: store_fails > 0 -> store_fails--; is_saved = false
  :: store_fails > 0 -> store_fails--; is_saved = false;
     put_record(ghost, phase_, side_, configured_, is_active_); has_ghost = true
  :: store_fails > 0 -> store_fails--; is_saved = false; write_both(phase_, side_, configured_, is_active_)
  fi
}
inline save_phase(new_phase) { save(new_phase, seen.side, seen.configured, true) }
inline save_end() { save(seen.phase, seen.side, seen.configured, false) }
/* The one write that says where the exports are: in one transaction with the phase. */
inline save_place(new_phase, new_side) {
#ifdef BREAK_CONFIGURED_OF_BEGIN
  save(new_phase, new_side, S, true)
#else
  save(new_phase, new_side, configuration, true)
#endif
}

/* MirrorDevice::detach: what was told and not flushed is dirty again. */
inline lose_target(d) {
  if
  :: has_target[d] ->
#ifndef BREAK_DETACH_FORGETS
     dirty[d] = dirty[d] || unsettled[d] || flushing[d];
#endif
     unsettled[d] = false; flushing[d] = false; has_target[d] = false; target_failed[d] = false
  :: else
  fi
}
/* Those who copy and checkpoint are cancelled and joined. */
inline stop_followers() {
  d_step {
    EACH {
      if :: copy[i] != idle -> dirty[i] = true; NOTE(i) :: else fi;
      copy[i] = idle; copied[i] = 0; checkpoint[i] = idle; flushed_value[i] = 0
    }
  }
}
inline release_holds() { d_step { EACH { is_held[i] = false } } }

/* --- guests: mirror_write.cpp ------------------------------------------------------------------------- */

/* MirrorDevice::begin: noted in the file before the primary is written. */
inline note_write(d) {
  if
  :: has_target[d] && !target_failed[d] && copy[d] == idle && !dirty[d] ->
     is_told[d] = true; unsettled[d] = true; NOTE(d)
  :: has_target[d] && dirty[d] && copy[d] == idle
  :: copy[d] == idle -> dirty[d] = true; NOTE(d) /* no target, or a mode that leaves it for later */
  :: copy[d] != idle -> is_overtaken[d] = true; unsettled[d] = true; NOTE(d)
  fi
}

proctype Guest(byte d) {
end:
  do
  :: atomic { request[d] == idle && is_serving && !is_held[d] && (asked[d] != 0 || last[d] < WRITES) ->
       if :: asked[d] == 0 -> last[d]++; asked[d] = last[d] :: else fi;
       is_through_mirror[d] = has_mirror[d];
#ifndef BREAK_NOTED_AFTER_WRITE
       if :: has_mirror[d] -> note_write(d) :: else fi;
#endif
       request[d] = begun }
  :: atomic { request[d] == begun ->
       /* At most one side takes writes, and no later process can find the other one in charge. */
       assert(side[d] == seen.side && (!has_ghost || ghost.side == side[d]) && !is_removed[side[d]]);
       PRIMARY(d).now[d] = asked[d];
       request[d] = written }
  :: atomic { request[d] == written ->
#ifdef BREAK_NOTED_AFTER_WRITE
       if :: is_through_mirror[d] -> note_write(d) :: else fi;
#endif
       if
       :: is_told[d] && has_target[d] -> FOLLOWER(d).now[d] = asked[d]
       :: is_told[d] -> dirty[d] = true; NOTE(d) /* spilled, or it is gone */
       :: else
       fi;
#ifndef BREAK_NOT_OVERTAKEN
       if :: is_overtaken[d] -> dirty[d] = true; NOTE(d) :: else fi;
#endif
       acknowledged[d] = asked[d]; asked[d] = 0;
       request[d] = idle; is_told[d] = false; is_overtaken[d] = false; is_through_mirror[d] = false }
  :: atomic { request[d] == idle && is_serving && !is_held[d] && asked[d] == 0 && flushed[d] < acknowledged[d] ->
       PRIMARY(d).durable[d] = PRIMARY(d).now[d]; flushed[d] = acknowledged[d] }
  od
}

/* --- copies and checkpoints: mirror_copy.cpp, ReplacedDisk::follow ------------------------------------- */

proctype Follower(byte d) {
end:
  do
  :: atomic { job == follow && copy[d] == idle && dirty[d] ->
       dirty[d] = false; unsettled[d] = true;
       if :: request[d] != idle && is_through_mirror[d] -> is_overtaken[d] = true :: else fi;
       copy[d] = begun }
  :: atomic { job == follow && copy[d] == begun -> copied[d] = PRIMARY(d).now[d]; copy[d] = written }
  :: atomic { job == follow && copy[d] == written ->
       FOLLOWER(d).now[d] = copied[d]; copied[d] = 0; copy[d] = idle }
  :: atomic { job == follow && checkpoint[d] == idle && unsettled[d] && !target_failed[d] ->
       flushing[d] = true; unsettled[d] = false; flushed_value[d] = FOLLOWER(d).now[d];
#ifndef BREAK_SETTLES_IN_FLIGHT
       if :: (request[d] != idle && is_through_mirror[d]) || copy[d] != idle -> unsettled[d] = true; NOTE(d) :: else fi;
#endif
       checkpoint[d] = begun }
  :: atomic { job == follow && checkpoint[d] == begun ->
       if
       :: target_failed[d] /* the driver's verifier tells: docs/decisions/0011 */
       :: else ->
          FOLLOWER(d).durable[d] = flushed_value[d];
          if :: !dirty[d] && !unsettled[d] && map[d] == differs -> map[d] = clean :: else fi;
          flushing[d] = false
       fi;
       flushed_value[d] = 0; checkpoint[d] = idle }
  od
}

/* --- the job: replacement*.cpp, replaced_disk.cpp ------------------------------------------------------ */

/* daemon.cpp: the database, the exports where it says, and the jobs, before clients are let in. */
inline open_store() {
  if
  :: has_ghost ->
     if
     :: put_record(seen, ghost.phase, ghost.side, ghost.configured, ghost.is_active);
#ifndef BREAK_FOUND_IS_NOT_DURABLE
        put_record(kept, ghost.phase, ghost.side, ghost.configured, ghost.is_active)
#endif
     :: skip
     fi
  :: else
  fi;
  forget_ghost();
  if :: edits > 0 && !is_recording && configuration != in_force -> edits--; configuration = in_force :: skip fi
}
inline open_exports() {
  if :: seen.configured == configuration -> charge = seen.side :: else -> charge = configuration fi;
  /* What was committed is so for ever, and what was not, not: but where nobody was let go yet. */
  assert(charge == in_force || is_recording);
  assert(!is_removed[charge]);
  in_force = charge; is_recording = false;
  EACH {
    side[i] = charge;
    if
    :: machine_was_down -> assert(PRIMARY(i).now[i] >= flushed[i]); acknowledged[i] = PRIMARY(i).now[i]; asked[i] = 0
    :: else -> assert(PRIMARY(i).now[i] == acknowledged[i] || (asked[i] != 0 && PRIMARY(i).now[i] == asked[i]));
       if
       :: asked[i] != 0 -> acknowledged[i] = PRIMARY(i).now[i]; asked[i] = 0 /* its sender is gone; others read what is there */
       :: skip /* it is sent again */
       fi
    fi
  };
  machine_was_down = false
}
/* ReplacedDisk::begin: what is noted is believed, or everything is dirty. */
inline begin_disk(d) {
  dirty[d] = (map[d] != clean); 
  if :: map[d] == missing -> map[d] = differs :: else fi;
  has_mirror[d] = true
}
inline next_disk(again, done) {
  if :: disk + 1 < DISKS -> disk++; job = again :: else -> disk = 0; job = done fi
}

/* Nobody uses it, and the other side is in charge whatever a later process finds. */
inline remove(which) {
  EACH { assert(side[i] == OTHER(which) && !has_target[i]) };
  assert(kept.side == OTHER(which) && seen.side == OTHER(which) && (!has_ghost || ghost.side == OTHER(which)));
  is_removed[which] = true
}

proctype Job() {
end:
  do
  :: atomic { job == down ->
       open_store(); open_exports();
       phase = seen.phase;
       if
       :: !seen.is_active -> is_serving = true; job = over
       :: seen.is_active && (phase == released || phase == aborted) -> is_serving = true; job = note_end
       :: seen.is_active && phase != released && phase != aborted -> job = take_up
       :: seen.is_active && phase != released && phase != aborted && store_fails > 0 -> /* load() fails */
          store_fails--;
#ifndef BREAK_LOAD_LEAVES_MAPS
          EACH { map[i] = missing };
#endif
          is_serving = true; job = left
       fi;
#ifdef BREAK_SERVES_BEFORE_TAKE_UP
       is_serving = true
#endif
     }
  :: atomic { job == take_up ->
       if
       :: begin_disk(disk);
          next_disk(take_up, (is_late -> left : go))
       :: begin_fails > 0 -> begin_fails--; map[disk] = missing; is_late = true;
#ifdef BREAK_TAKE_UP_STOPS
          disk = 0; job = left
#else
          next_disk(take_up, left)
#endif
       fi;
       if :: job != take_up -> is_serving = true; is_late = false :: else fi }
  /* ReplaceService::resume or cancel of one that could not be taken up: guests have written meanwhile. */
  :: atomic { job == left &&
#ifndef BREAK_PUT_WAITS_FOR_NOBODY
       request[disk] == idle && /* Endpoints::put returns when what used the device before has ended */
#endif
       true ->
#ifdef BREAK_LATE_BELIEVES
       copied[disk] = (map[disk] == clean -> 0 : 1); job = late_put
#else
       map[disk] = differs; dirty[disk] = true; has_mirror[disk] = true; next_disk(left, go)
#endif
     }
  :: atomic { job == late_put && request[disk] == idle ->
       dirty[disk] = (copied[disk] == 1); copied[disk] = 0; has_mirror[disk] = true;
       if :: map[disk] == missing -> map[disk] = differs :: else fi;
       next_disk(left, go) }
  :: atomic { job == go ->
       if
       :: phase == delta -> job = attach
       :: phase == switching -> save_phase(delta);
          if :: is_saved -> phase = delta; job = attach :: else -> job = undo fi
       :: phase == committed ->
#ifdef BREAK_UNDOES_COMMITTED
          job = undo
#else
          save_phase(retained);
          if :: is_saved -> phase = retained; job = attach :: else -> job = end_detach fi
#endif
       :: phase == retained -> job = attach
       :: phase == aborting -> job = end_detach
       fi }
  :: atomic { job == attach ->
       if
       :: has_target[disk] -> next_disk(attach, follow)
       :: !has_target[disk] && !is_removed[OTHER(charge)] -> has_target[disk] = true; next_disk(attach, follow)
       :: !has_target[disk] && (is_removed[OTHER(charge)] || losses > 0) ->
          if :: is_removed[OTHER(charge)] :: else -> losses-- fi;
          disk = 0; job = halt
       fi }
  /* supervise(): in step or not, since what is left is copied while guests are held. */
  :: atomic { job == follow ->
       if
       :: phase == delta -> stop_followers(); next = committed; job = hold
       :: phase == retained -> stop_followers(); next = aborting; job = hold /* fallback */
       :: phase == retained -> stop_followers(); job = end_detach /* its time is over */
       :: phase == delta -> stop_followers(); job = undo /* cancel */
       fi }
  :: atomic { job == follow && (target_failed[0] || target_failed[DISKS - 1]) -> stop_followers(); job = halt }
  :: atomic { job == halt -> EACH { lose_target(i) }; job = paused }
  :: atomic { job == paused ->
       if
       :: !is_removed[OTHER(charge)] -> job = attach /* resume */
       :: phase == delta -> job = undo
       :: phase == retained -> job = end_detach
       fi }

  /* change_places() */
  :: atomic { job == hold && next == committed && phase != switching && !is_held[0] ->
       save_phase(switching);
       if :: is_saved -> phase = switching :: else -> job = halt fi }
  :: atomic { job == hold && (next == aborting || phase == switching) && !is_held[0] -> EACH { is_held[i] = true } }
  :: atomic { job == hold && is_held[0] &&
#ifndef BREAK_HOLD_WAITS_FOR_NOBODY
       request[0] == idle && request[DISKS - 1] == idle &&
#endif
       true -> job = copy_rest }
  :: atomic { (job == hold || job == copy_rest || job == make_durable) && is_held[0] && timeouts > 0 -> /* the pause is over, or cancel */
       timeouts--; disk = 0; release_holds(); job = back }
  :: atomic { job == copy_rest ->
       if
       :: dirty[disk] -> FOLLOWER(disk).now[disk] = PRIMARY(disk).now[disk]; dirty[disk] = false; unsettled[disk] = true
       :: else
       fi;
#ifdef BREAK_COMMITS_BEFORE_FLUSH
       next_disk(copy_rest, record)
#else
       next_disk(copy_rest, make_durable)
#endif
     }
  :: atomic { job == make_durable ->
       if
       :: target_failed[disk] -> disk = 0; release_holds(); job = back
       :: else ->
          FOLLOWER(disk).durable[disk] = FOLLOWER(disk).now[disk];
          PRIMARY(disk).durable[disk] = PRIMARY(disk).now[disk];
          unsettled[disk] = false; flushing[disk] = false;
          if :: map[disk] == differs -> map[disk] = clean :: else fi;
          next_disk(make_durable, record)
       fi }
  :: atomic { job == record ->
       is_recording = true;
#ifdef BREAK_FALLBACK_WITHOUT_RECORD
       if :: next == aborting -> is_saved = true :: else -> save_place(next, OTHER(charge)) fi;
#else
       save_place(next, OTHER(charge));
#endif
       if
       :: is_saved -> job = switch_over
       :: else ->
#ifdef BREAK_LETS_GO_UNSURE
          if :: seen.phase == next -> job = switch_over :: else -> is_recording = false; release_holds(); job = back fi
#else
          job = record_again
#endif
       fi }
  /* Guests wait until one write has succeeded: of the same record, or of the former one, where the database
   * does not show the new one. */
  :: atomic { job == record_again ->
#ifndef BREAK_NEVER_WRITES_AGAIN
       if
       :: save_place(next, OTHER(charge)); if :: is_saved -> job = switch_over :: else fi
#ifndef BREAK_SETTLES_WHAT_IS_WRITTEN
       :: seen.phase == next -> job = switch_over
       :: seen.phase != next ->
#else
       :: true ->
#endif
#ifdef BREAK_SETTLING_WRITES_NOTHING
          is_saved = true;
#else
          save_phase(seen.phase);
#endif
          if :: is_saved -> is_recording = false; release_holds(); job = back :: else fi
       fi
#else
       false
#endif
     }
  :: atomic { job == switch_over ->
       side[disk] = OTHER(side[disk]);
       dirty[disk] = false; unsettled[disk] = false; flushing[disk] = false;
       if
       :: next == committed /* the old storage follows */
       :: has_target[disk] = false; target_failed[disk] = false
       fi;
#ifdef BREAK_LETS_GO_ONE_BY_ONE
       is_held[disk] = false;
#endif
       next_disk(switch_over, let_go) }
  :: atomic { job == let_go ->
       charge = OTHER(charge); phase = next; next = delta; in_force = charge; is_recording = false;
       release_holds(); job = go }
  /* It was not recorded. */
  :: atomic { job == back ->
       if
       :: next == aborting -> job = halt
       :: next == committed -> save_phase(delta);
          if :: is_saved -> phase = delta; job = attach :: else -> phase = delta; job = halt fi
       fi }

  /* undo(), let_source_go(), end_disks() */
  :: atomic { job == undo -> save_phase(aborting);
       if :: is_saved -> phase = aborting :: else fi;
       job = end_detach }
#ifdef BREAK_REMOVES_BEFORE_END
  :: atomic { job == end_detach && disk == 0 && !is_removed[OTHER(charge)] && (phase == retained || phase == aborting) ->
       is_removed[OTHER(charge)] = true }
#endif
  :: atomic { job == end_detach -> lose_target(disk);
#ifdef BREAK_MAP_AFTER_PUT
       job = end_put
#else
       job = end_unmap
#endif
     }
  :: atomic { job == end_unmap -> map[disk] = missing;
#ifdef BREAK_MAP_AFTER_PUT
       next_disk(end_detach, end_remove)
#else
       job = end_put
#endif
     }
  :: atomic { job == end_put -> has_mirror[disk] = false; dirty[disk] = false;
#ifdef BREAK_MAP_AFTER_PUT
       job = end_unmap
#else
       next_disk(end_detach, end_remove)
#endif
     }
  :: atomic { job == end_remove ->
       if
       :: phase == retained -> if :: skip :: remove(S) fi; job = end_phase
       :: phase == aborting -> if :: skip :: remove(T) fi; job = end_phase
       :: else -> job = note_end
       fi }
  :: atomic { job == end_phase ->
       if :: phase == retained -> save_phase(released) :: else -> save_phase(aborted) fi;
       job = note_end }
  :: atomic { job == note_end -> save_end();
       if
       :: is_saved -> job = over; phase = delta;
          EACH { storage[OTHER(charge)].now[i] = 0; storage[OTHER(charge)].durable[i] = 0 } /* nobody's any more */
       :: else
       fi }
  od
}

/* --- what happens to them ------------------------------------------------------------------------------ */

/* kill -9: memory is gone; of what followers were told some was not sent. */
inline end_process() {
  d_step {
    EACH {
      is_held[i] = false; has_mirror[i] = false; has_target[i] = false; target_failed[i] = false;
      dirty[i] = false; unsettled[i] = false; flushing[i] = false;
      copy[i] = idle; copied[i] = 0; checkpoint[i] = idle; flushed_value[i] = 0;
      request[i] = idle; is_told[i] = false; is_overtaken[i] = false; is_through_mirror[i] = false
    };
    is_serving = false; is_late = false; disk = 0; next = delta; job = down
  }
}
inline lose_unflushed(which) { d_step { EACH { storage[which].now[i] = storage[which].durable[i] } } }

proctype World() {
end:
  do
  :: atomic { kills > 0 && job != down -> kills--;
       if :: has_target[0] || has_target[DISKS - 1] -> lose_unflushed(OTHER(in_force)) :: skip fi;
       end_process() }
  :: atomic { crashes > 0 && job != down -> crashes--;
       end_process(); machine_was_down = true;
#ifndef BREAK_MAP_OUTLIVES_MACHINE
       EACH { map[i] = missing };
#endif
       if :: lose_unflushed(S) :: skip fi;
       if :: lose_unflushed(T) :: skip fi;
       /* Of a write that failed, all or nothing is on the disk. */
       put_record(seen, kept.phase, kept.side, kept.configured, kept.is_active) }
  /* The storage that follows loses its power, and comes back by itself. */
  :: atomic { losses > 0 && job == follow -> losses--;
       lose_unflushed(OTHER(charge)); EACH { target_failed[i] = has_target[i] } }
  od
}

/* What a guest reads is what was acknowledged, or what it is just writing; all disks are on one side, unless
 * all their guests are held. */
#define READS(d) (PRIMARY(d).now[d] == acknowledged[d] || (asked[d] != 0 && PRIMARY(d).now[d] == asked[d]))
#define USES_REMOVED(d) (is_removed[side[d]] || (has_target[d] && is_removed[OTHER(side[d])]))
#define IS_RIGHT (!is_serving || (READS(0) && READS(DISKS - 1) && !USES_REMOVED(0) && !USES_REMOVED(DISKS - 1) && \
                  (side[0] == side[DISKS - 1] || (is_held[0] && is_held[DISKS - 1]))))
proctype Reader() {
end:
  atomic { !(IS_RIGHT) -> assert(false) }
}

/* When nothing can happen any more, the job is over and every guest has its answer. */
proctype Last() {
end:
  atomic { timeout -> assert(job == over && is_serving && !is_held[0] && !is_held[DISKS - 1] &&
                             asked[0] == 0 && asked[DISKS - 1] == 0) }
}

init {
  atomic {
    for (i : 0 .. DISKS - 1) { run Guest(i); run Follower(i) }
    run Job(); run World(); run Reader(); run Last()
  }
}
