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
 * How much of it at once: CRASHES, HEARTBEATS, DROPS, DUPLICATES (0 or 1), and LEAVERS,
 * the number of clients that may leave for good before their answer. With a drop one
 * call loses its connection, and its client asks again, in time or not. A duplicate is
 * another call of one of the clients, earlier or later than its own and at either
 * replica; nobody listens to it, and it ends or is seen to be left at any time.
 * Variants:
 *   USERS=2           two users instead of one
 *   HOLDERS=2         two holders instead of three
 *   WORDS_ARRIVE      every word arrives, and the loop does not look
 * Mutants, each of which must fail:
 *   LOOKS_ONCE        as WORDS_ARRIVE, but a call enters the waiting room after it has
 *                     queued, and does not look again
 *   TRUSTS_OLD_READ   the loop ends what an earlier read found lapsed
 *   ROW_BEFORE_QUEUE  a release locks the row of its lease before the queue
 *   LEAVES_BLINDLY    a call that is left takes its waiter out of the queue, whoever
 *                     else has asked about it
 */

#ifdef LOOKS_ONCE
#define WORDS_ARRIVE
#endif
#ifndef HOLDERS
#define HOLDERS 3
#endif
#define REPLICAS 2
#ifndef USERS
#define USERS 1
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef LEAVERS
#define LEAVERS 0
#endif
#ifndef HEARTBEATS
#define HEARTBEATS 0
#endif
#ifndef DROPS
#define DROPS 0
#endif
#ifndef DUPLICATES
#define DUPLICATES 0
#endif
#define NOBODY 15
/* Where none leaves, nobody reads who has noted its time. */
#define NOTED(call) (LEAVERS + DROPS + DUPLICATES > 0 -> call : NOBODY)

/* Who can have a lock: the calls of each holder, a heartbeat, a loop on each replica. */
#define PUT(i) (i)
#define DUPLICATE HOLDERS
#define CALLS (HOLDERS + 1)
#define DELETE(i) (CALLS + i)
#define RENEW (CALLS + HOLDERS)
#define LOOP(r) (RENEW + 1 + r)
#define ACTORS (RENEW + 1 + REPLICAS)

#define each(i, limit) i : 0 .. limit - 1
#if HOLDERS == 2
#define any(property) (property(0) || property(1))
#else
#define any(property) (property(0) || property(1) || property(2))
#endif

mtype = { none, waiting, held, ended };

/* The database, as far as it is committed. Leases are numbered as they come. */
mtype state[HOLDERS] = none;    /* leases.state */
bool lapsed[HOLDERS];           /* expires_at or poll_by is past, on its clock */
byte holder_of[USERS] = NOBODY; /* users.lease_id */
bool rests[USERS];              /* users.rest_until is to come */
byte noted_by[HOLDERS] = NOBODY;    /* the call that wrote poll_by, not who left */
chan line = [HOLDERS] of { byte };  /* queue_entries, oldest first */

byte queue_lock = NOBODY;
byte row_lock[HOLDERS] = NOBODY;

/* The replicas. */
bool up[REPLICAS] = true;
byte at[ACTORS] = NOBODY;       /* the replica that runs a call */
bool cut[ACTORS];               /* it died under the call */
bool in_room[CALLS];            /* WaitingRoom.enter */
bool sleeps[CALLS];             /* a call waits: poll_by is later than its end */
bool woken[HOLDERS];
byte twin = NOBODY;             /* whose call was sent twice */

/* The clients. */
bool patient[HOLDERS];          /* it waits for its answer, however long */
bool gone[HOLDERS];             /* it listens to no answer any more */
bool uses[HOLDERS];             /* it was told that it holds its user */
byte drops;                     /* connections that were lost so far */

/*
 * The server's word: from the commit of a grant or a renewal until its expiry passes,
 * this user is the holder's. A client counts from before it asked, so it stops sooner.
 */
byte word[HOLDERS] = NOBODY;

hidden byte u, k, next;         /* scratch, within one step */

#define is_live(i) (state[i] == waiting || state[i] == held)
#define is_asleep(i) (sleeps[i] || (twin == i && sleeps[DUPLICATE]))
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
    (!lapsed[i] && (state[i] == held || (state[i] == waiting && !is_asleep(i))))
#ifdef WORDS_ARRIVE
#define is_woken(i) woken[i]
#else
#define is_woken(i) (state[i] != waiting)   /* so the loop's wake_granted finds */
#endif

/*
 * A call reaches one of the replicas. Which one is a matter of names if none dies, but
 * for a call that is sent twice.
 */
inline reach(self) {
    if
    :: up[0] -> at[self] = 0
    :: up[1] && (CRASHES > 0 || self == DUPLICATE) -> at[self] = 1
    fi
}

inline lock_queue(self) {
    queue_lock = self;
    reach(self)
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
            assert(row_lock[next] == NOBODY || row_lock[next] == queue_lock);
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
    :: line ?? [eval(i)] -> line ?? eval(i)
    :: else
    fi;
    for (each(u, USERS)) {
        if
        :: holder_of[u] == i -> holder_of[u] = NOBODY; rests[u] = lapsed[i]
        :: else
        fi
    }
    state[i] = ended;
    noted_by[i] = NOBODY;
    lapsed[i] = false
}

/* services/settling.py: in the queue again, its place is that of its number. */
inline ask(self, i) {
    if
    :: state[i] == none ->
        is_new = true;
        state[i] = waiting;
        noted_by[i] = NOTED(self);
        line !! i;
        hand_on()
    :: is_due(i) -> end_lease(i); hand_on()
    :: is_live(i) && !lapsed[i] ->
        if  /* it keeps its place, has it again, or has been granted */
        :: state[i] == waiting && !(line ?? [eval(i)]) -> line !! i; hand_on()
        :: else
        fi;
        if
        :: state[i] == waiting -> earlier = noted_by[i]; noted_by[i] = NOTED(self)
        :: else -> noted_by[i] = NOBODY /* grants.claim */
        fi
    :: state[i] == ended
    fi;
    waits = (state[i] == waiting);
    sleeps[self] = waits;
    unlock_all(self)
}

/* services/asking.py, _leave: what a call does whose caller is gone. */
inline leave(self, i) {
    sleeps[self] = false;
    if
#ifdef LEAVES_BLINDLY
    :: state[i] == waiting
#else
    :: noted_by[i] == self && state[i] == waiting && earlier != NOBODY ->
        noted_by[i] = earlier   /* it stays for a call whose time is not over */
    :: noted_by[i] == self && state[i] == waiting && earlier == NOBODY
#endif
     ->
        assert(!is_asleep(i) /* nobody who waits is taken out of the queue */);
        if
        :: line ?? [eval(i)] -> line ?? eval(i)
        :: else
        fi;
        noted_by[i] = NOBODY;
        lapsed[i] = false
    :: noted_by[i] == self && state[i] == held && is_new ->
        assert(!uses[i] /* no grant is taken back from who knows of it */);
        state[i] = waiting;
        for (each(u, USERS)) {
            if
            :: holder_of[u] == i -> holder_of[u] = NOBODY
            :: else
            fi
        }
        word[i] = NOBODY;
        noted_by[i] = NOBODY;
        lapsed[i] = false;
        hand_on()
    :: else /* somebody has asked again, or it is over */
    fi;
    unlock_all(self)
}

inline hang_up(self) {
    waits = false;
    is_new = false;
    earlier = NOBODY;
    in_room[self] = false;
    sleeps[self] = false;
    at[self] = NOBODY
}

#define is_own (self == PUT(i))
#define other (is_own -> DUPLICATE : PUT(i))
#define has_several(i) \
    ((!is_own || twin == i) && in_room[other] && at[other] == at[self])
#define may_be_left \
    (!is_own || gone[i] || (drops < DROPS && (twin == NOBODY || twin == i)))

/*
 * services/asking.py: PUT, again with the same id for as long as no answer comes. Only
 * a call that made its lease takes its grant back, at once or after a wait.
 */
proctype Put(byte i, self) {
    bool waits, is_new;
    byte earlier = NOBODY;      /* who had noted its time before this call */

end_ask:
    {
        atomic {
            may_come(i) && queue_lock == NOBODY ->
            lock_queue(self);
#ifndef LOOKS_ONCE
            in_room[self] = true;
#endif
            lock_row(self, i)
        }
        d_step { ask(self, i) }
#ifdef LOOKS_ONCE
        in_room[self] = true;
#endif
        if
        :: d_step {     /* it sleeps, unless it has its answer; then it looks */
                !waits || !is_own || gone[i] || is_woken(i) ->
                assert(waits || state[i] != waiting /* what it tells is still true */);
                if
                :: is_own ->
                    uses[i] = (state[i] == held && !gone[i]);
                    gone[i] = gone[i] || state[i] == ended;
                    woken[i] = false
                :: else
                fi;
                hang_up(self)
            }
        :: atomic {     /* it is seen to be left */
                (waits || is_new) && may_be_left && !has_several(i) &&
                queue_lock == NOBODY ->
                queue_lock = self;
                lock_row(self, i);
                if
                :: is_own && !gone[i] -> drops++
                :: else
                fi;
                if      /* the time of a call that is over may be to come or not */
                :: earlier != NOBODY && !sleeps[earlier] -> earlier = NOBODY
                :: skip
                fi
            }
            d_step { leave(self, i); hang_up(self) }
            if
            :: !is_own || gone[i]
            :: else -> goto end_ask
            fi
        fi
    } unless {
        atomic {
            cut[self] ->
            cut[self] = false;
            hang_up(self);
            if
            :: !is_own || gone[i]
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
            reach(RENEW)
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
                :: actor < CALLS -> in_room[actor] = false; sleeps[actor] = false
                :: else
                fi;
                if
                :: actor < HOLDERS -> woken[actor] = false
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
#if HOLDERS > 2
    :: d_step { may_lapse(2) -> lapse(2) }
#endif
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
            run Put(i, PUT(i));
            run Client(i)
        }
        if
        :: DUPLICATES > 0 ->
            if
            :: twin = 0
            :: twin = 1
            :: HOLDERS > 2 -> twin = 2
            fi;
            run Put(twin, DUPLICATE)
        :: else
        fi;
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
