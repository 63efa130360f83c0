-------------------------------- MODULE Busy --------------------------------
(* One lane of turns (specs/design.md 5): messages that come while it is busy, turns that are left
   open, and sends with a key over several runs. A turn has the number of the message that
   made it. One worker, which may die. Outbox and workers are in the other modules. *)
EXTENDS Integers, FiniteSets

CONSTANTS
  Messages,     \* how many come, in the order of their numbers
  Faults,       \* deaths, messages that come again, stops of the lane
  JoinsWhole,   \* guard: a message joins a turn of which nothing has begun
  KeyGoesAlong, \* guard: a message that joined is known by its own key
  StopsAll,     \* guard: the newer message stops what runs, too, in its own commit
  Heeds,        \* guard: a run that was stopped answers nothing
  AnswersOnce,  \* guard: a turn that was left open is answered once
  Leaves,       \* guard: a turn that was left open is not run again
  Memo          \* guard: a later run gets the send of the first, by its key

M == 1..Messages

VARIABLES
  of,       \* per message: the turn that answers it; 0 before it comes
  phase,    \* per turn
  begun,    \* per turn: a run has begun
  pausing,  \* per turn: it waits for more messages before it starts
  heard,    \* per turn: the messages that its last run has read
  sends,    \* per turn: entries that the send with one key has made
  finals,   \* per turn: answers
  newest,   \* the last message that superseded others
  job,      \* the turn whose handler runs in the process; 0 for none
  told,     \* that run has made its send
  left
vars == <<of, phase, begun, pausing, heard, sends, finals, newest, job, told, left>>

Over == {"answered", "failed", "aborted"}
Waiting == {t \in M : phase[t] \in {"accepted", "running"}}
First(few) == CHOOSE t \in few : \A other \in few : t <= other
Last(few) == CHOOSE t \in few : \A other \in few : t >= other
MineOf(t) == {m \in M : of[m] = t}

TypeOK ==
  /\ of \in [M -> 0..Messages] /\ newest \in 0..Messages /\ job \in 0..Messages
  /\ phase \in [M -> {"none", "accepted", "running", "open"} \cup Over]
  /\ begun \in [M -> BOOLEAN] /\ pausing \in [M -> BOOLEAN] /\ told \in BOOLEAN
  /\ heard \in [M -> SUBSET M] /\ sends \in [M -> 0..2] /\ finals \in [M -> 0..2]
  /\ left \in 0..Faults

Init ==
  /\ of = [m \in M |-> 0] /\ phase = [m \in M |-> "none"] /\ newest = 0
  /\ begun = [m \in M |-> FALSE] /\ pausing = [m \in M |-> FALSE]
  /\ heard = [m \in M |-> {}] /\ sends = [m \in M |-> 0] /\ finals = [m \in M |-> 0]
  /\ job = 0 /\ told = FALSE /\ left = Faults

Spend == left > 0 /\ left' = left - 1
run == <<begun, heard, sends, finals, job, told>>

(* ---- a message comes ---- *)
Comes(m) == of[m] = 0 /\ \A earlier \in M : earlier < m => of[earlier] # 0

\* A turn of its own; it may wait for more.
Queued ==
  \E m \in M, pause \in BOOLEAN :
    /\ Comes(m) /\ of' = [of EXCEPT ![m] = m]
    /\ phase' = [phase EXCEPT ![m] = "accepted"]
    /\ pausing' = [pausing EXCEPT ![m] = pause]
    /\ UNCHANGED <<run, newest, left>>

Joined ==
  \E m \in M :
    /\ Comes(m) /\ Waiting # {}
    /\ LET host == Last(Waiting) IN
         /\ JoinsWhole => phase[host] = "accepted" /\ ~begun[host]
         /\ of' = [of EXCEPT ![m] = host]
    /\ UNCHANGED <<phase, pausing, run, newest, left>>

Stopped == {t \in Waiting : StopsAll \/ phase[t] = "accepted"}

\* One commit stops the older turns and takes the message.
Superseded ==
  \E m \in M :
    /\ Comes(m) /\ of' = [of EXCEPT ![m] = m] /\ newest' = m
    /\ phase' = [t \in M |-> IF t = m THEN "accepted"
                             ELSE IF t \in Stopped THEN "aborted" ELSE phase[t]]
    /\ UNCHANGED <<pausing, run, left>>

\* Known by its key, and never run.
Dropped ==
  \E m \in M :
    /\ Comes(m) /\ Waiting # {} /\ of' = [of EXCEPT ![m] = m]
    /\ phase' = [phase EXCEPT ![m] = "aborted"]
    /\ UNCHANGED <<pausing, run, newest, left>>

\* The platform brings a message again. A key that is known changes nothing, so with its
\* guard this is no step.
Again ==
  \E m \in M :
    /\ ~KeyGoesAlong /\ of[m] \notin {0, m} /\ phase[m] = "none" /\ Spend
    /\ phase' = [phase EXCEPT ![m] = "accepted"]
    /\ UNCHANGED <<of, pausing, run, newest>>

PauseEnds ==
  \E t \in M :
    /\ pausing[t] /\ pausing' = [pausing EXCEPT ![t] = FALSE]
    /\ UNCHANGED <<of, phase, run, newest, left>>

(* ---- runs ---- *)
Next1 == IF Waiting = {} THEN 0 ELSE First(Waiting)
CanStart(t) ==
  \/ t = Next1 /\ phase[t] = "accepted" /\ ~pausing[t]
  \/ ~Leaves /\ phase[t] = "open"

Started ==
  \E t \in M :
    /\ job = 0 /\ CanStart(t)
    /\ phase' = [phase EXCEPT ![t] = "running"] /\ begun' = [begun EXCEPT ![t] = TRUE]
    /\ heard' = [heard EXCEPT ![t] = MineOf(t) \cup {t}]
    /\ job' = t /\ told' = FALSE
    /\ UNCHANGED <<of, pausing, sends, finals, newest, left>>

Running == job # 0 /\ phase[job] = "running"

\* `turn.send(key=...)`: the entry is durable when it returns.
Known == Memo /\ sends[job] > 0
Said ==
  /\ Running /\ ~told /\ ~Known /\ told' = TRUE
  /\ sends' = [sends EXCEPT ![job] = @ + 1]
  /\ UNCHANGED <<of, phase, begun, pausing, heard, finals, newest, job, left>>

SaidBefore ==
  /\ Running /\ ~told /\ Known /\ told' = TRUE
  /\ UNCHANGED <<of, phase, begun, pausing, heard, sends, finals, newest, job, left>>

Answers(t) ==
  /\ phase' = [phase EXCEPT ![t] = "answered"] /\ finals' = [finals EXCEPT ![t] = @ + 1]
  /\ UNCHANGED <<of, begun, pausing, heard, sends, newest, left>>

Answered ==
  /\ job # 0 /\ (Running \/ (~Heeds /\ phase[job] = "aborted")) /\ Answers(job)
  /\ job' = 0 /\ told' = FALSE

\* A run that was stopped, or whose turn is no longer its own, changes nothing.
Stale ==
  /\ job # 0 /\ ~Running /\ job' = 0 /\ told' = FALSE
  /\ UNCHANGED <<of, phase, begun, pausing, heard, sends, finals, newest, left>>

Orphaned ==
  \E t \in M :
    /\ phase[t] = "running" /\ job # t /\ phase' = [phase EXCEPT ![t] = "accepted"]
    /\ UNCHANGED <<of, pausing, run, newest, left>>

Crash ==
  /\ job # 0 /\ Spend /\ job' = 0 /\ told' = FALSE
  /\ UNCHANGED <<of, phase, begun, pausing, heard, sends, finals, newest>>

(* ---- turns that are left open ---- *)

\* `turn.later()`: the lane goes on without it.
LeftOpen ==
  /\ Running /\ phase' = [phase EXCEPT ![job] = "open"] /\ job' = 0 /\ told' = FALSE
  /\ UNCHANGED <<of, begun, pausing, heard, sends, finals, newest, left>>

AnsweredLater ==
  \E t \in M :
    /\ phase[t] = "open" \/ (~AnswersOnce /\ phase[t] = "answered" /\ finals[t] < 2)
    /\ Answers(t) /\ UNCHANGED <<job, told>>

TimeIsUp ==
  \E t \in M :
    /\ phase[t] = "open" /\ phase' = [phase EXCEPT ![t] = "failed"]
    /\ UNCHANGED <<of, pausing, run, newest, left>>

\* `abort_lane`: a user says stop.
LaneAborted ==
  /\ Waiting # {} /\ Spend
  /\ phase' = [t \in M |-> IF t \in Waiting THEN "aborted" ELSE phase[t]]
  /\ UNCHANGED <<of, pausing, run, newest>>

Progress == PauseEnds \/ Started \/ Answered \/ Stale \/ Orphaned \/ TimeIsUp
Trouble ==
  Queued \/ Joined \/ Superseded \/ Dropped \/ Again \/ Said \/ SaidBefore \/ Crash
  \/ LeftOpen \/ AnsweredLater \/ LaneAborted
Next == Progress \/ Trouble
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety ---- *)
AnsweredTurns == {t \in M : phase[t] = "answered"}
Heard == \A t \in AnsweredTurns : MineOf(t) \subseteq heard[t]        \* nothing is forgotten
Once == \A m \in M : Cardinality({t \in AnsweredTurns : m \in heard[t]}) < 2      \* INV-9
OneAnswer == \A t \in M : finals[t] < 2                                           \* INV-9
SaidOnce == \A t \in M : sends[t] < 2                                             \* INV-2
\* From the commit of the newer message on, nothing older waits or runs.
Newest == \A t \in M : t < newest => phase[t] \notin {"accepted", "running"}

StaysOver == [][\A t \in M : phase[t] \in {"aborted", "failed"} => phase'[t] = phase[t]]_vars
OpenWaits == [][\A t \in M : phase[t] = "open" => phase'[t] \notin {"accepted", "running"}]_vars

(* ---- liveness ---- *)
Ended == <>[](\A m \in M : of[m] # 0 => phase[of[m]] \in Over)                    \* INV-14
=============================================================================
