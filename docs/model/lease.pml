/*
 * The lease protocol: two replicas over one database, three holders who want one user.
 * ../correctness.md tells what it shows; `python3 .ci/check_model.py` checks it.
 *
 * A transaction is two steps. The first takes its locks, and waits for them. The second
 * reads, writes, commits and unlocks: its writes are unseen before. Between the two its
 * replica may die, which undoes it, and time may pass.
 *
 * Every run ends, since each holder has one lease, a replica dies once, and heartbeats
 * are counted. So what must come about in the end is asserted where a run ends.
 *
 * A word (NOTIFY) of a grant is always lost here. One that arrives does what the loop's
 * own look does, only sooner.
 *
 * How much of it at once: CRASHES, HEARTBEATS (0 or 1), and LEAVERS, the number of
 * clients that may leave before their answer.
 * Variants:
 *   USERS=2           two users instead of one
 *   WORDS_ARRIVE      every word arrives, and the loop does not look
 * Mutants, each of which must fail:
 *   LOOKS_ONCE        as WORDS_ARRIVE, but a call enters the waiting room after it has
 *                     queued, and does not look again
 *   TRUSTS_OLD_READ   the loop ends what an earlier read found lapsed
 *   ROW_BEFORE_QUEUE  a release locks the row of its lease before the queue
 */

#ifdef LOOKS_ONCE
#define WORDS_ARRIVE
#endif
#define HOLDERS 3
#define REPLICAS 2
#ifndef USERS
#define USERS 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LEAVERS
#define LEAVERS 1
#endif
#ifndef HEARTBEATS
#define HEARTBEATS 1
#endif
#define NOBODY 15

/* Who can have a lock: the calls of each holder, a heartbeat, a loop on each replica. */
#define PUT(i) (i)
#define DELETE(i) (HOLDERS + i)
#define RENEW (2 * HOLDERS)
#define LOOP(r) (2 * HOLDERS + 1 + r)
#define ACTORS (2 * HOLDERS + 1 + REPLICAS)

#define each(i, limit) i : 0 .. limit - 1
#define any(property) (property(0) || property(1) || property(2))

mtype = { none, waiting, held, ended };

/* The database, as far as it is committed. Leases are numbered as they come. */
mtype state[HOLDERS] = none;    /* leases.state */
bool lapsed[HOLDERS];           /* expires_at or poll_by is past, on its clock */
byte holder_of[USERS] = NOBODY; /* users.lease_id */
bool rests[USERS];              /* users.rest_until is to come */
chan line = [HOLDERS] of { byte };  /* queue_entries, oldest first */

byte queue_lock = NOBODY;
byte row_lock[HOLDERS] = NOBODY;

/* The replicas. */
bool up[REPLICAS] = true;
byte at[ACTORS] = NOBODY;       /* the replica that runs a call */
bool cut[ACTORS];               /* it died under the call */
bool in_room[HOLDERS];          /* WaitingRoom.enter */
bool sleeps[HOLDERS];           /* a call waits: poll_by is later than its end */
bool woken[HOLDERS];

/* The clients. */
bool patient[HOLDERS];          /* it waits for its answer, however long */
bool gone[HOLDERS];             /* it listens to no answer any more */
bool uses[HOLDERS];             /* it was told that it holds its user */

/*
 * The server's word: from the commit of a grant or a renewal until its expiry passes,
 * this user is the holder's. A client counts from before it asked, so it stops sooner.
 */
byte word[HOLDERS] = NOBODY;

hidden byte u, k, next;         /* scratch, within one step */

#define is_live(i) (state[i] == waiting || state[i] == held)
#define is_asleep(i) sleeps[i]
#define is_used(i) uses[i]
#define is_locked(i) (row_lock[i] != NOBODY)
#define is_due(i) (is_live(i) && lapsed[i])
#define is_sweepable(i) (is_due(i) && row_lock[i] == NOBODY)
#define is_free(u) (holder_of[u] == NOBODY && !rests[u])
#if USERS == 1
#define any_free is_free(0)
#else
#define any_free (is_free(0) || is_free(1))
#endif
#define may_hand_on (any_free && len(line) > 0)
/* Which lease comes first is only a matter of names. */
#define may_come(i) (i == 0 || state[i - 1] != none)
#define may_lapse(i) \
    (!lapsed[i] && (state[i] == held || (state[i] == waiting && !sleeps[i])))
#ifdef WORDS_ARRIVE
#define is_woken(i) woken[i]
#else
#define is_woken(i) (state[i] != waiting)   /* so the loop's wake_granted finds */
#endif

/* A call reaches one of the replicas, which takes the queue lock for it. */
inline lock_queue(self) {
    queue_lock = self;
    if
    :: up[0] -> at[self] = 0
    :: up[1] -> at[self] = 1
    fi
}

/* Then the row of its lease, which only a renewal can have locked. */
inline lock_row(self, i) {
    if
    :: state[i] == none
    :: state[i] != none && row_lock[i] == NOBODY -> row_lock[i] = self
    fi
}

inline unlock_all(self) {
    if
    :: queue_lock == self -> queue_lock = NOBODY
    :: else
    fi;
    for (each(k, HOLDERS)) {
        if
        :: row_lock[k] == self -> row_lock[k] = NOBODY
        :: else
        fi
    }
}

/* services/hand_on.py: in the transaction that frees a user, behind the queue lock. */
inline hand_on() {
    for (each(u, USERS)) {
        if
        :: is_free(u) && len(line) > 0 ->
            line ? next;
#ifndef ROW_BEFORE_QUEUE
            /* It waits for no row: a renewal names no lease that waits. */
            assert(row_lock[next] == NOBODY);
#endif
            for (each(k, HOLDERS)) {
                assert(word[k] != u /* never two holders */)
            }
            state[next] = held;
            lapsed[next] = false;
            holder_of[u] = next;
            word[next] = u;
#ifdef WORDS_ARRIVE
            woken[next] = in_room[next]
#endif
        :: else
        fi
    }
}

/* services/ending.py. The user of a lease that lapsed rests before it goes on. */
inline end_lease(i) {
    if
    :: state[i] == waiting -> line ?? eval(i)
    :: else
    fi;
    for (each(u, USERS)) {
        if
        :: holder_of[u] == i -> holder_of[u] = NOBODY; rests[u] = lapsed[i]
        :: else
        fi
    }
    state[i] = ended;
    lapsed[i] = false
}

/* services/asking.py: PUT, again with the same id for as long as no answer comes. */
proctype Put(byte i) {
    bool waits;

end_ask:
    {
        atomic {
            may_come(i) && queue_lock == NOBODY ->
            lock_queue(PUT(i));
#ifndef LOOKS_ONCE
            in_room[i] = true;
#endif
            lock_row(PUT(i), i)
        }
        d_step {
            if
            :: state[i] == none -> state[i] = waiting; line ! i; hand_on()
            :: is_due(i) -> end_lease(i); hand_on()
            :: else     /* it keeps its place, or has been granted */
            fi;
            waits = (state[i] == waiting);
            sleeps[i] = waits;
            unlock_all(PUT(i))
        }
#ifdef LOOKS_ONCE
        in_room[i] = true;
#endif
        d_step {        /* it sleeps, unless it has its answer; then it looks */
            !waits || gone[i] || is_woken(i) ->
            uses[i] = (state[i] == held && !gone[i]);
            gone[i] = gone[i] || state[i] == ended;
            waits = false;
            in_room[i] = false;
            sleeps[i] = false;
            woken[i] = false;
            at[PUT(i)] = NOBODY
        }
    } unless {
        atomic {
            cut[PUT(i)] ->
            cut[PUT(i)] = false;
            waits = false;
            if
            :: gone[i]
            :: else -> goto end_ask
            fi
        }
    }
}

/*
 * What a client does beside asking: it gives its lease back, or vanishes. Its DELETE
 * goes to the replica that may die, as long as that is up.
 */
proctype Client(byte i) {
end_not_yet:
    atomic {    /* an impatient one leaves at any time, be it before its call arrives */
        may_come(i) && (!patient[i] || uses[i] || gone[i]) ->
        patient[i] = false;
        uses[i] = false;
        gone[i] = true;
        if
        :: goto vanished
        :: skip
        fi
    };
give_back:
    {
#ifdef ROW_BEFORE_QUEUE
        atomic { lock_row(DELETE(i), i) };
        atomic {
            queue_lock == NOBODY ->
            queue_lock = DELETE(i);
            at[DELETE(i)] = (up[0] -> 0 : 1)
        }
#else
        atomic {
            queue_lock == NOBODY ->
            queue_lock = DELETE(i);
            at[DELETE(i)] = (up[0] -> 0 : 1);
            lock_row(DELETE(i), i)
        }
#endif
        d_step {
            if
            :: is_live(i) -> word[i] = NOBODY; end_lease(i); hand_on()
            :: else -> state[i] = ended     /* a PUT that comes later finds it over */
            fi;
            unlock_all(DELETE(i));
            at[DELETE(i)] = NOBODY
        }
    } unless {
        atomic {
            cut[DELETE(i)] ->
            cut[DELETE(i)] = false;
            goto give_back
        }
    }
vanished:
    skip
}

/*
 * services/leases.py, renew: one call for all the leases of a process. It locks their
 * rows in the order of their numbers, without the queue lock, and reads the clock then.
 */
proctype Heartbeat() {
    byte i, beats;

end_idle:
    do
    :: atomic {
            beats < HEARTBEATS && any(is_used) ->
            beats++;
            if
            :: up[0] -> at[RENEW] = 0
            :: up[1] -> at[RENEW] = 1
            fi
        }
        {
            do
            :: i < HOLDERS ->
                atomic {
                    if
                    :: !uses[i]
                    :: uses[i] && row_lock[i] == NOBODY -> row_lock[i] = RENEW
                    fi;
                    i++
                }
            :: i == HOLDERS -> break
            od;
            atomic {
                for (each(i, HOLDERS)) {
                    if  /* what is over is told so, and needs no lock any more */
                    :: row_lock[i] == RENEW && (state[i] != held || lapsed[i]) ->
                        row_lock[i] = NOBODY
                    :: else
                    fi
                }
            }
            /* What was in time there may have lapsed when this commits. */
            d_step {
                for (each(i, HOLDERS)) {
                    if
                    :: row_lock[i] == RENEW ->
                        lapsed[i] = false;
                        for (each(k, USERS)) {
                            if
                            :: holder_of[k] == i -> word[i] = k
                            :: else
                            fi
                        }
                    :: else
                    fi
                }
                unlock_all(RENEW);
                at[RENEW] = NOBODY;
                i = 0
            }
        } unless {
            d_step { cut[RENEW] -> cut[RENEW] = false; i = 0 }
        }
    od
}

inline forget() {
    for (each(i, HOLDERS)) {
        named[i] = false
    }
    i = 0
}

/* services/expiry.py, on each replica. */
proctype Loop(byte r) {
    byte i;
    bool named[HOLDERS];

end_idle:
    do
#ifdef TRUSTS_OLD_READ
    :: d_step {
            up[r] && (any(is_due) || may_hand_on) ->
            at[LOOP(r)] = r;
            for (each(i, HOLDERS)) {
                named[i] = is_due(i)
            }
            i = 0
        }
        {
            atomic { queue_lock == NOBODY -> queue_lock = LOOP(r) }
            do
            :: i < HOLDERS && named[i] ->
                atomic { row_lock[i] == NOBODY -> row_lock[i] = LOOP(r); i++ }
            :: i < HOLDERS && !named[i] -> i++
            :: i == HOLDERS -> break
            od;
            i = 0;
#else
    :: d_step {
            up[r] && queue_lock == NOBODY && (any(is_sweepable) || may_hand_on) ->
            at[LOOP(r)] = r;
            queue_lock = LOOP(r);
            for (each(i, HOLDERS)) {
                named[i] = is_sweepable(i);     /* FOR UPDATE SKIP LOCKED */
                row_lock[i] = (named[i] -> LOOP(r) : row_lock[i])
            }
            i = 0
        }
        {
#endif
            d_step {
                for (each(i, HOLDERS)) {
                    if
                    :: named[i] && is_live(i) -> lapsed[i] = true; end_lease(i)
                    :: else
                    fi
                }
                hand_on();
                unlock_all(LOOP(r));
                at[LOOP(r)] = NOBODY;
                forget()
            }
        } unless {
            d_step { cut[LOOP(r)] -> cut[LOOP(r)] = false; forget() }
        }
    od
}

/* A replica dies, and all that it runs with it. The other one has to do. */
proctype Crash() {
    byte actor;

    if
    :: goto spared
    :: CRASHES > 0 -> skip
    fi;
    d_step {
        up[0] = false;
        for (each(actor, ACTORS)) {
            if
            :: at[actor] == 0 ->
                at[actor] = NOBODY;
                cut[actor] = true;
                unlock_all(actor);
                if
                :: actor < HOLDERS ->
                    in_room[actor] = false;
                    sleeps[actor] = false;
                    woken[actor] = false
                :: else
                fi
            :: else
            fi
        }
    }
spared:
    skip
}

/* The database's clock. The client, by its own, has stopped before. */
inline lapse(i) {
    lapsed[i] = true;
    word[i] = NOBODY;
    gone[i] = gone[i] || uses[i];
    uses[i] = false
}

proctype Clock() {
end_idle:
    do
    :: d_step { may_lapse(0) -> lapse(0) }
    :: d_step { may_lapse(1) -> lapse(1) }
    :: d_step { may_lapse(2) -> lapse(2) }
    :: d_step { rests[0] -> rests[0] = false }
#if USERS > 1
    :: d_step { rests[1] -> rests[1] = false }
#endif
    od
}

/* Where a run ends, nothing may be left. */
proctype End() {
    timeout ->
    assert(queue_lock == NOBODY && !any(is_locked) /* no cycle of locks */);
    assert(!(any(is_asleep)) /* no call sleeps for ever */);
    assert(len(line) == 0 /* no waiter is forgotten */);
    assert(!(any(is_live)) /* no lease outlives its time */);
}

init {
    byte i, leavers;

    atomic {
        for (each(i, HOLDERS)) {
            if
            :: patient[i] = true
            :: leavers < LEAVERS -> leavers++
            fi;
            run Put(i);
            run Client(i)
        }
        i = 0;
        leavers = 0;
        run Heartbeat();
        run Loop(0);
        run Loop(1);
        run Crash();
        run Clock();
        run End()
    }
}
