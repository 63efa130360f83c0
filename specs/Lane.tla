-------------------------------- MODULE Lane --------------------------------
(* Lanes and gates (specs/design.md 4 and 6): entries are queued in order, each in its lane; a
   closed gate holds an account, or one conversation; the head of a lane may yield. *)
EXTENDS Integers

CONSTANTS
  Entries,  \* how many, queued in the order of their numbers
  Lanes,    \* entry n is in lane n % Lanes
  Faults,   \* failures, deferrals, doubts
  Crashes,
  Ordered   \* guard: an entry waits for those ahead of it

E == 1..Entries
L == 0..(Lanes - 1)
LaneOf(e) == e % Lanes

VARIABLES
  queued,   \* how many entries there are
  phase,    \* per entry
  yielded,  \* per entry: later ones may pass
  first,    \* per entry: the order of its first dispatch, 0 for none
  sent,    \* dispatches so far
  gate,     \* per lane: its conversation is open
  account,  \* the account is open
  alive,
  left, crashes

vars == <<queued, phase, yielded, first, sent, gate, account, alive, left, crashes>>

Closed == {"delivered", "failed", "aborted"}
Passed(e) == phase[e] \in {"delivered", "aborted"} \/ yielded[e]

TypeOK ==
  /\ queued \in 0..Entries /\ sent \in 0..Entries
  /\ phase \in [E -> {"none", "queued", "dispatched", "in_doubt", "retryable", "parked"} \cup Closed]
  /\ yielded \in [E -> BOOLEAN] /\ first \in [E -> 0..Entries]
  /\ gate \in [L -> BOOLEAN] /\ account \in BOOLEAN /\ alive \in BOOLEAN
  /\ left \in 0..Faults /\ crashes \in 0..Crashes

Init ==
  /\ queued = 0 /\ sent = 0
  /\ phase = [e \in E |-> "none"] /\ yielded = [e \in E |-> FALSE]
  /\ first = [e \in E |-> 0] /\ gate = [l \in L |-> TRUE] /\ account = TRUE
  /\ alive = TRUE /\ left = Faults /\ crashes = Crashes

Queued ==
  /\ queued < Entries
  /\ queued' = queued + 1 /\ phase' = [phase EXCEPT ![queued + 1] = "queued"]
  /\ UNCHANGED <<yielded, first, sent, gate, account, alive, left, crashes>>

Ahead(e) == {f \in E : f < e /\ LaneOf(f) = LaneOf(e)}

\* The gates and the lane are looked at before the attempt.
Attempted(e) ==
  /\ alive /\ phase[e] \in {"queued", "retryable"} /\ account /\ gate[LaneOf(e)]
  /\ Ordered => \A f \in Ahead(e) : Passed(f)
  /\ phase' = [phase EXCEPT ![e] = "dispatched"]
  /\ IF first[e] = 0
     THEN sent' = sent + 1 /\ first' = [first EXCEPT ![e] = sent + 1]
     ELSE UNCHANGED <<sent, first>>
  /\ UNCHANGED <<queued, yielded, gate, account, alive, left, crashes>>

Becomes(e, from, to) ==
  /\ phase[e] \in from /\ phase' = [phase EXCEPT ![e] = to]
  /\ UNCHANGED <<queued, first, sent, alive, crashes>>

\* From in_doubt and parked by evidence that came late.
Delivered(e) ==
  alive /\ Becomes(e, {"dispatched", "in_doubt", "parked"}, "delivered") /\ UNCHANGED <<yielded, gate, account, left>>

Spend == left > 0 /\ left' = left - 1

FailedRetryable(e) ==
  alive /\ Spend /\ Becomes(e, {"dispatched"}, "retryable") /\ UNCHANGED <<yielded, gate, account>>

\* A rate limit closes what it names; the entry waits where it was.
DeferredByRoute(e) ==
  /\ alive /\ Spend /\ Becomes(e, {"dispatched"}, "queued")
  /\ gate' = [gate EXCEPT ![LaneOf(e)] = FALSE] /\ UNCHANGED <<yielded, account>>

DeferredByAccount(e) ==
  /\ alive /\ Spend /\ Becomes(e, {"dispatched"}, "queued")
  /\ account' = FALSE /\ UNCHANGED <<yielded, gate>>

\* A placeholder stands; its entry goes on with an edit of it.
Placed(e) ==
  alive /\ Spend /\ Becomes(e, {"dispatched", "in_doubt"}, "queued") /\ UNCHANGED <<yielded, gate, account>>

Doubted(e) ==
  alive /\ Spend /\ Becomes(e, {"dispatched"}, "in_doubt") /\ UNCHANGED <<yielded, gate, account>>

\* Parked, or failed for good: the head yields in the same commit.
Yields(e) == yielded' = [yielded EXCEPT ![e] = TRUE] /\ UNCHANGED <<gate, account>>
Parked(e) == alive /\ Becomes(e, {"in_doubt"}, "parked") /\ Yields(e) /\ UNCHANGED left
Failed(e) ==
  alive /\ Spend /\ Becomes(e, {"queued", "dispatched", "in_doubt", "retryable", "parked"}, "failed") /\ Yields(e)

\* A retry that takes long may let the others pass, and so may a live reply in its place.
LaneYielded(e) ==
  /\ alive /\ ~yielded[e]
  /\ phase[e] = "retryable" \/ (phase[e] = "queued" /\ first[e] > 0)
  /\ Yields(e)
  /\ UNCHANGED <<queued, phase, first, sent, alive, left, crashes>>

Aborted(e) ==
  Spend /\ Becomes(e, {"queued", "retryable"}, "aborted") /\ UNCHANGED <<yielded, gate, account>>

Resolved(e) ==
  alive /\ Spend /\ Becomes(e, {"parked"}, "retryable") /\ UNCHANGED <<yielded, gate, account>>

GateOpened ==
  /\ \/ \E l \in L : ~gate[l] /\ gate' = [gate EXCEPT ![l] = TRUE] /\ UNCHANGED account
     \/ ~account /\ account' = TRUE /\ UNCHANGED gate
  /\ UNCHANGED <<queued, phase, yielded, first, sent, alive, left, crashes>>

\* What a dead owner had on the wire is in doubt.
Crash ==
  /\ alive /\ crashes > 0 /\ alive' = FALSE /\ crashes' = crashes - 1
  /\ UNCHANGED <<queued, phase, yielded, first, sent, gate, account, left>>

Recovered ==
  /\ ~alive /\ alive' = TRUE
  /\ phase' = [e \in E |-> IF phase[e] = "dispatched" THEN "in_doubt" ELSE phase[e]]
  /\ UNCHANGED <<queued, yielded, first, sent, gate, account, left, crashes>>

Progress ==
  \/ Queued \/ GateOpened \/ Recovered
  \/ \E e \in E : Attempted(e) \/ Delivered(e) \/ Parked(e)
Trouble ==
  \/ Crash
  \/ \E e \in E : FailedRetryable(e) \/ DeferredByRoute(e) \/ DeferredByAccount(e)
       \/ Placed(e) \/ Doubted(e) \/ Failed(e) \/ LaneYielded(e) \/ Aborted(e) \/ Resolved(e)

Next == Progress \/ Trouble
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety ---- *)

\* INV-8: of two in a lane the later is dispatched first only if the earlier yielded,
\* or never was dispatched and is over.
InOrder == \A e \in E : \A f \in Ahead(e) :
  first[e] > 0 => \/ first[f] > 0 /\ first[f] < first[e]
                  \/ yielded[f] \/ phase[f] = "aborted"
OneAtATime == \A e, f \in E :
  e # f /\ LaneOf(e) = LaneOf(f) /\ phase[e] = "dispatched" /\ phase[f] = "dispatched" =>
    yielded[e] \/ yielded[f]
Numbered == \A e \in E : (e > queued) <=> (phase[e] = "none")
HeldBack == [][\A e \in E : phase[e] # "dispatched" /\ phase'[e] = "dispatched" =>
                 account /\ gate[LaneOf(e)]]_vars

(* ---- liveness ---- *)

Settled == <>[](\A e \in E : phase[e] \in Closed \cup {"parked"})                  \* INV-14
=============================================================================
