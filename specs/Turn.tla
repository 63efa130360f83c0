-------------------------------- MODULE Turn --------------------------------
(* A turn and its runs (specs/design.md 5), from the inbound message to its end, with workers
   that die, sleep and wake up, a platform that delivers the message again, and an
   outbox that is only as large as a turn needs it: one final entry, one notice. *)
EXTENDS Integers

CONSTANTS
  Runs,      \* how often the handler may fail
  Faults,    \* crashes, pauses, exceptions, releases, messages that come again
  Doubtful,  \* the final may end in doubt (a blind channel)
  Locked,    \* assumption: a sleeping worker is not replaced
  MaxAlone,  \* so many deaths alone hold a turn
  Holds,     \* guard: such a turn waits for a person
  AloneOnly, \* guard: a death beside others is no blame
  Unanswered \* guard: only a turn without an answer is run again by a person

Workers == {1, 2}
NoOne == 0

VARIABLES
  turns,    \* turns made for the one message: INV-9
  turn,     \* phase of the turn
  outcome,
  runs, failed,  \* started; counted against the limit
  fence,    \* the epoch of the worker that may append
  final,    \* the final entry: "none", "open", "doubt", "delivered", "failed", "aborted"
  abort,
  notices,
  alone,    \* deaths in which nothing else ran, since a person let it run
  blame,    \* what the log counts of them
  held,     \* it waits for a person
  again,    \* a person has let it run again: once
  life,     \* per worker: "dead", "awake", "asleep"
  epoch,    \* per worker: its fence
  job,      \* per worker: the run it executes, or 0
  ready,    \* per worker: the handler returned a reply that is not logged yet
  left

trial == <<alone, blame, held, again>>
vars == <<turns, turn, outcome, runs, failed, fence, final, abort, notices, trial,
          life, epoch, job, ready, left>>
log == <<turns, turn, outcome, runs, failed, final, abort, notices, trial>>
workers == <<life, epoch, job, ready>>

Over == {"completed", "failed", "aborted"}
Done == {"delivered", "failed", "aborted"}

TypeOK ==
  /\ turns \in 0..2 /\ turn \in {"none", "accepted", "running", "answered"} \cup Over
  /\ outcome \in {"none", "replied", "failed", "aborted"}
  /\ runs \in 0..(Runs + Faults + 2) /\ failed \in 0..Runs /\ notices \in 0..2
  /\ final \in {"none", "open", "doubt"} \cup Done
  /\ life \in [Workers -> {"dead", "awake", "asleep"}] /\ left \in 0..Faults
  /\ {abort, held, again} \subseteq BOOLEAN /\ alone \in 0..Faults /\ blame \in 0..Faults
  /\ ready \in [Workers -> BOOLEAN]

Init ==
  /\ turns = 0 /\ turn = "none" /\ outcome = "none" /\ runs = 0 /\ failed = 0
  /\ final = "none" /\ abort = FALSE /\ notices = 0
  /\ alone = 0 /\ blame = 0 /\ held = FALSE /\ again = FALSE
  /\ fence = 1 /\ life = [w \in Workers |-> IF w = 1 THEN "awake" ELSE "dead"]
  /\ epoch = [w \in Workers |-> IF w = 1 THEN 1 ELSE 0]
  /\ job = [w \in Workers |-> 0] /\ ready = [w \in Workers |-> FALSE]
  /\ left = Faults

Spend == left > 0 /\ left' = left - 1
Owner(w) == life[w] = "awake" /\ epoch[w] = fence
Idle(w) == job' = [job EXCEPT ![w] = 0] /\ ready' = [ready EXCEPT ![w] = FALSE]

(* ---- inbound ---- *)

\* The key, the body and the cursor are in one commit; a key that is known changes
\* nothing, so a message that comes again is no step at all.
Accepted ==
  /\ turns = 0 /\ turns' = 1 /\ turn' = "accepted"
  /\ UNCHANGED <<outcome, runs, failed, final, abort, notices, fence, workers, left, trial>>

\* An update that nobody can read: it is kept, and nobody knows whom to tell.
Dead ==
  /\ turns = 0 /\ turns' = 1 /\ turn' = "failed" /\ outcome' = "failed"
  /\ UNCHANGED <<runs, failed, final, abort, notices, fence, workers, left, trial>>

\* A person has it read, or run, again.
Resubmitted ==
  /\ turn = "failed" /\ ~again /\ (Unanswered => final = "none")
  /\ turn' = "accepted" /\ outcome' = "none" /\ failed' = 0
  /\ again' = TRUE /\ alone' = 0 /\ blame' = 0
  /\ UNCHANGED <<turns, runs, final, abort, notices, held, fence, workers, left>>

(* ---- runs ---- *)

Started(w) ==
  /\ Owner(w) /\ turn = "accepted" /\ ~abort /\ failed < Runs /\ job[w] = 0
  /\ ~held /\ (Holds => blame < MaxAlone)
  /\ turn' = "running" /\ runs' = runs + 1 /\ job' = [job EXCEPT ![w] = runs + 1]
  /\ UNCHANGED <<turns, outcome, failed, final, abort, notices, fence, life, epoch,
                 ready, left, trial>>

Computed(w) ==
  /\ life[w] = "awake" /\ job[w] > 0 /\ ~ready[w]
  /\ ready' = [ready EXCEPT ![w] = TRUE]
  /\ UNCHANGED <<log, fence, life, epoch, job, left>>

Mine(w) == Owner(w) /\ turn = "running" /\ job[w] = runs

\* `answered`, and the final queued: one commit, or parts are lost.
Answered(w) ==
  /\ Mine(w) /\ ready[w]
  /\ turn' = "answered" /\ final' = "open" /\ Idle(w)
  /\ UNCHANGED <<turns, outcome, runs, failed, abort, notices, fence, life, epoch, left, trial>>

\* A run that lost its turn, or its fence, is told so and changes nothing.
Stale(w) ==
  /\ life[w] = "awake" /\ job[w] > 0 /\ ready[w] /\ ~Mine(w) /\ Idle(w)
  /\ UNCHANGED <<log, fence, life, epoch, left>>

RunFailed(w) ==
  /\ Mine(w) /\ ~ready[w] /\ Spend
  /\ turn' = "accepted" /\ failed' = failed + 1 /\ Idle(w)
  /\ UNCHANGED <<turns, outcome, runs, final, abort, notices, fence, life, epoch, trial>>

Released(w) ==
  /\ Mine(w) /\ ~ready[w] /\ Spend
  /\ turn' = "accepted" /\ Idle(w)
  /\ UNCHANGED <<turns, outcome, runs, failed, final, abort, notices, fence, life, epoch, trial>>

\* The run of a dead owner does not count: others may have caused the death. The new
\* owner says so, and whether anything else was under way.
Orphaned(w) ==
  /\ Owner(w) /\ turn = "running" /\ job[w] # runs
  /\ turn' = "accepted"
  /\ \E beside \in BOOLEAN :
       /\ alone' = alone + (IF beside THEN 0 ELSE 1)
       /\ blame' = blame + (IF beside /\ AloneOnly THEN 0 ELSE 1)
  /\ UNCHANGED <<turns, outcome, runs, failed, final, abort, notices, fence, workers,
                 left, held, again>>

Held ==
  /\ turn = "accepted" /\ ~held /\ Holds /\ blame >= MaxAlone /\ held' = TRUE
  /\ UNCHANGED <<turns, turn, outcome, runs, failed, final, abort, notices, fence,
                 workers, left, alone, blame, again>>

\* A person lets it run.
Unheld ==
  /\ held /\ turn = "accepted" /\ Spend /\ held' = FALSE /\ alone' = 0 /\ blame' = 0
  /\ UNCHANGED <<turns, turn, outcome, runs, failed, final, abort, notices, fence,
                 workers, again>>

(* ---- ends: in the same commit as what they follow from ---- *)

\* Whoever was told of a failure is not told of the next one.
Told(note) == IF again /\ notices > 0 THEN 0 ELSE note

GaveUp(w) ==
  /\ Owner(w) /\ turn = "accepted" /\ failed = Runs
  /\ turn' = "failed" /\ outcome' = "failed" /\ notices' = notices + Told(1)
  /\ UNCHANGED <<turns, runs, failed, final, abort, fence, workers, left, trial>>

Ends(phase, said, note) ==
  /\ turn' = phase /\ outcome' = said /\ notices' = notices + Told(note)
  /\ UNCHANGED <<turns, runs, failed, abort, fence, workers, left, trial>>

FinalDelivered ==
  /\ turn = "answered" /\ final \in {"open", "doubt"}
  /\ final' = "delivered" /\ Ends("completed", "replied", 0)

FinalFailed ==
  /\ turn = "answered" /\ final \in {"open", "doubt"}
  /\ final' = "failed" /\ Ends("failed", "failed", 1)

FinalDoubted ==
  /\ Doubtful /\ turn = "answered" /\ final = "open" /\ final' = "doubt"
  /\ UNCHANGED <<turns, turn, outcome, runs, failed, abort, notices, fence, workers,
                 left, trial>>

\* Evidence after the end: the outcome is amended, nobody is told twice.
Amended ==
  /\ turn = "failed" /\ final = "failed" /\ Doubtful
  /\ final' = "delivered" /\ Ends("completed", "replied", 0)

AbortRequested ==
  /\ turn \in {"accepted", "running", "answered"} /\ ~abort /\ abort' = TRUE
  /\ UNCHANGED <<turns, turn, outcome, runs, failed, final, notices, fence, workers,
                 left, trial>>

Aborted ==
  /\ abort
  /\ \/ turn \in {"accepted", "running"} /\ UNCHANGED final
     \/ turn = "answered" /\ final = "open" /\ final' = "aborted"
  /\ Ends("aborted", "aborted", 0)

(* ---- workers ---- *)

Crash(w) ==
  /\ life[w] # "dead" /\ Spend
  /\ life' = [life EXCEPT ![w] = "dead"] /\ Idle(w)
  /\ UNCHANGED <<log, fence, epoch>>

Sleeps(w) ==
  /\ life[w] = "awake" /\ Spend /\ life' = [life EXCEPT ![w] = "asleep"]
  /\ UNCHANGED <<log, fence, epoch, job, ready>>

Wakes(w) ==
  /\ life[w] = "asleep" /\ life' = [life EXCEPT ![w] = "awake"]
  /\ UNCHANGED <<log, fence, epoch, job, ready, left>>

Free == \A w \in Workers :
  life[w] = "dead" \/ epoch[w] # fence \/ (~Locked /\ life[w] = "asleep")

TakesOver(w) ==
  /\ life[w] = "dead" /\ Free
  /\ life' = [life EXCEPT ![w] = "awake"]
  /\ fence' = fence + 1 /\ epoch' = [epoch EXCEPT ![w] = fence + 1]
  /\ UNCHANGED <<log, job, ready, left>>

Of(w) ==
  Started(w) \/ Computed(w) \/ Answered(w) \/ Stale(w) \/ Orphaned(w) \/ GaveUp(w)
  \/ Wakes(w)
Progress ==
  \/ Accepted \/ Dead \/ Held \/ FinalDelivered \/ Aborted
  \/ \E w \in Workers : Of(w) \/ TakesOver(w)
Trouble ==
  \/ FinalFailed \/ FinalDoubted \/ Amended \/ AbortRequested \/ Unheld \/ Resubmitted
  \/ \E w \in Workers : RunFailed(w) \/ Released(w) \/ Crash(w) \/ Sleeps(w)

Next == Progress \/ Trouble
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety ---- *)

OneTurn == turns < 2                                                           \* INV-9
OwedNothing == turn \in Over => final \in {"none"} \cup Done                   \* INV-10
Follows ==                                                                    \* INV-10
  /\ outcome = "replied" <=> turn = "completed"
  /\ turn = "completed" <=> final = "delivered"
  /\ turn = "answered" => final \in {"open", "doubt"}
NoticedOnce == notices < 2
Fenced == \A w \in Workers : epoch[w] <= fence                                 \* INV-5
OneRun == \A v, w \in Workers : v # w => ~(Mine(v) /\ Mine(w))               \* the lane
DoubtKept == [][final = "doubt" => final' # "aborted"]_vars                         \* INV-11
AnsweredOnce == [][final # "none" => turn' # "running"]_vars                   \* INV-9
InTime == alone <= MaxAlone                         \* nothing kills its process for ever
Innocent == held => alone >= MaxAlone                                        \* blame
RunsGrow == [][runs' >= runs /\ fence' >= fence]_vars                          \* INV-6

(* ---- liveness ---- *)

Ended == <>[](turn \in Over \/ held)                                                  \* INV-14
=============================================================================
