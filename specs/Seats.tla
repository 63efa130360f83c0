------------------------------- MODULE Seats -------------------------------
(* The first half of `Lease.tla`: lives of workers, proofs of death, and who has the seat of
   a shard. There is no clock: a lease may end at any moment, and a worker that takes no
   step is a stopped one. *)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS
  Lives,      \* workers that begin: one row of the table `worker` each
  Shards,     \* the message lies in shard 1
  Class,      \* of the message: "keyed", "lookup", "blind"; "inbox": a command; "none"
  Records,    \* the most that is written
  Faults,     \* hand-overs, and commits whose answer does not come
  Failovers,  \* of the server, to a standby that may lack the last commits
  \* assumptions
  NoLongSleep,        \* nothing goes on after max_pause_ms
  TrueWords,          \* a person, or an orchestrator, certifies only what has ended
  \* guards
  TokenChecked,       \* a commit shows the token in hand
  OwnerChecked,       \* and is one of the owner
  PlaceChecked,       \* and the log ends where it believes
  TokenAfterDoubt,    \* a new token after a commit of unknown fate
  AskedKept,          \* a seat knows each token that it has asked for
  TokenAfterTake, TokenAfterHandOver,
  TokenCompared,      \* a take finds the token that it found free
  LivingTakes,        \* only who counts as alive takes
  ProofOfDeath,       \* a lease that is over is not enough
  DeadStays,          \* a renewal revives nobody
  SilenceEnds,        \* a worker that is silent for max_pause_ms is taken as dead
  WatchdogKills,      \* a watchdog certifies what it has ended and seen gone
  GoodbyeLast,        \* a worker says goodbye after its last request
  QuietHandOver,      \* a seat is freed after the last request
  DurableFirst,       \* a request leaves after the commit of its attempt
  DoubtStays,         \* an attempt of another epoch did not fail: nobody knows
  BlindParks,
  AbsenceWaits,       \* "not found" counts when nothing more can land
  HeadCompared,       \* a worker goes on only with a log that has what it stored
  RestoredHeld,       \* a new worker on a server that went back sends nothing again
  PromisesKept,       \* a key in the inbox is taken
  KeysKept,           \* and a key in the log
  LeavesInbox         \* a command leaves the inbox in the commit that logs it

VARIABLES
  row, over,       \* per life: what the table says; its lease is over
  shard,           \* per shard: owner, token, freed, epochs, log, wrote, last
  entry, box,      \* in shard 1: the message; its key and its command
  noted,           \* the server's history in which the log was whole
  copy, now,       \* what the standby has; the history of today
  proc,            \* per life: its process
  seat,            \* per life and shard: what the worker believes
  hand,            \* per life: how far its request is
  late,            \* a commit that is under way
  wire, landed,    \* requests that may land; messages that the platform shows
  told,            \* the turns that callers were told of
  made, left, bad
vars == <<row, over, shard, entry, box, noted, copy, now, proc, seat, hand, late, wire,
          landed, told, made, left, bad>>
database == <<row, over, shard, entry, box, noted>>
message == <<entry, box, noted, told>>
server == <<copy, now>>
platform == <<wire, landed>>

W == 1..Lives
S == 1..Shards
None == [life |-> 0]
NoSeat == [tok |-> 0, asked |-> 0, ep |-> 0, base |-> 0, doubt |-> FALSE, seen |-> -1, era |-> 0, behind |-> FALSE]
End(s) == IF shard[s].log = <<>> THEN 0 ELSE shard[s].log[Len(shard[s].log)]
Has(s, head) == head = 0 \/ \E n \in 1..Len(shard[s].log) : shard[s].log[n] = head
Able(w) == proc[w] = "up" /\ row[w] = "alive" /\ ~over[w]
Quiet(w) == hand[w] \notin {"armed", "wire"}
Spend == left > 0 /\ left' = left - 1

TypeOK ==
  /\ row \in [W -> {"none", "alive", "expired", "dead"}] /\ over \in [W -> BOOLEAN]
  /\ proc \in [W -> {"new", "up", "down"}]
  /\ hand \in [W -> {"", "armed", "wire", "yes", "timeout"}]
  /\ entry.phase \in {"queued", "attempted", "doubt", "retry", "delivered", "parked"}
  /\ \A s \in S : shard[s].owner \in 0..Lives /\ Len(shard[s].log) <= Records
  /\ wire \in 0..2 /\ landed \in 0..2 /\ left \in 0..Faults /\ made \in 0..Records

Init ==
  /\ row = [w \in W |-> "none"] /\ over = [w \in W |-> FALSE]
  /\ shard = [s \in S |-> [owner |-> 0, token |-> 0, freed |-> FALSE, epochs |-> 0,
                           log |-> <<>>, wrote |-> 0, last |-> 0]]
  /\ entry = [phase |-> "queued", epoch |-> 0, attempts |-> 0]
  /\ box = [key |-> "", waiting |-> FALSE, logged |-> 0]
  /\ noted = 1 /\ copy = <<>> /\ now = 1
  /\ proc = [w \in W |-> "new"] /\ seat = [p \in W \X S |-> NoSeat] /\ hand = [w \in W |-> ""]
  /\ late = None /\ wire = 0 /\ landed = 0 /\ told = {} /\ made = 0 /\ left = Faults /\ bad = {}

(* ---- lives ---- *)
Register(w) ==
  /\ proc[w] = "new" /\ (w > 1 => proc[w - 1] # "new")
  /\ proc' = [proc EXCEPT ![w] = "up"] /\ row' = [row EXCEPT ![w] = "alive"]
  /\ UNCHANGED <<over, shard, message, server, seat, hand, late, platform, made, left, bad>>

LeaseEnds(w) ==
  /\ row[w] = "alive" /\ ~over[w] /\ over' = [over EXCEPT ![w] = TRUE]
  /\ UNCHANGED <<row, shard, message, server, proc, seat, hand, late, platform, made, left, bad>>

\* Without its guard: the renewal that was under way comes late.
Revived(w) ==
  /\ ~DeadStays /\ proc[w] = "up" /\ row[w] \in {"expired", "dead"}
  /\ row' = [row EXCEPT ![w] = "alive"] /\ over' = [over EXCEPT ![w] = FALSE]
  /\ UNCHANGED <<shard, message, server, proc, seat, hand, late, platform, made, left, bad>>

Ended(w) ==
  /\ proc' = [proc EXCEPT ![w] = "down"] /\ hand' = [hand EXCEPT ![w] = ""]
  /\ seat' = [p \in W \X S |-> IF p[1] = w THEN NoSeat ELSE seat[p]]
Dies(w) ==
  /\ proc[w] = "up" /\ Ended(w)
  /\ UNCHANGED <<database, server, late, platform, told, made, left, bad>>

(* ---- proofs of death ---- *)
Says(w, word) ==
  /\ row[w] = "alive" /\ row' = [row EXCEPT ![w] = word]
  /\ UNCHANGED <<over, shard, message, server, late, platform, made, left, bad>>
Holds(w) == \E s \in S : shard[s].owner = w

Goodbye(w) ==
  /\ proc[w] = "up" /\ Says(w, "dead")
  /\ LivingTakes => \E s \in S : seat[w, s].tok # 0  \* else it makes no difference
  /\ GoodbyeLast => Quiet(w) /\ \A s \in S : ~seat[w, s].doubt
  /\ seat' = [p \in W \X S |-> IF p[1] = w THEN [NoSeat EXCEPT !.seen = seat[p].seen] ELSE seat[p]]
  /\ UNCHANGED <<proc, hand>>
\* A process of the same boot and pid namespace sees it.
SeenGone(w) ==
  proc[w] = "down" /\ Holds(w) /\ Says(w, "dead") /\ UNCHANGED <<proc, seat, hand>>
Certified(w) ==
  /\ Holds(w) /\ (TrueWords => proc[w] = "down") /\ Says(w, "dead")
  /\ UNCHANGED <<proc, seat, hand>>
\* The watchdog of the machine: first the end, then the word.
WatchdogEnds(w) ==
  /\ proc[w] = "up" /\ Holds(w) /\ row[w] = "alive" /\ over[w] /\ Ended(w)
  /\ UNCHANGED <<database, server, late, platform, told, made, left, bad>>
Watchdog(w) ==
  /\ Holds(w) /\ over[w] /\ (WatchdogKills => proc[w] = "down") /\ Says(w, "dead")
  /\ UNCHANGED <<proc, seat, hand>>
Silent(w) ==
  /\ SilenceEnds /\ Holds(w) /\ over[w] /\ Says(w, "expired")
  /\ IF NoLongSleep THEN Ended(w) ELSE UNCHANGED <<proc, seat, hand>>
\* Without its guard.
Believed(w) ==
  ~ProofOfDeath /\ Holds(w) /\ over[w] /\ Says(w, "expired") /\ UNCHANGED <<proc, seat, hand>>

(* ---- seats ---- *)
Free(w, s) ==
  LET o == shard[s].owner IN
  IF o \in {0, w} \/ shard[s].freed THEN TRUE ELSE row[o] # "alive"

Finds(w, s) ==
  /\ proc[w] = "up" /\ seat[w, s].tok = 0 /\ Free(w, s) /\ seat[w, s].seen # shard[s].token
  /\ LivingTakes => Able(w)
  /\ seat' = [seat EXCEPT ![w, s].seen = shard[s].token]
  /\ UNCHANGED <<database, server, proc, hand, late, platform, told, made, left, bad>>

Takes(w, s) ==
  LET token == shard[s].token + (IF TokenAfterTake \/ shard[s].token = 0 THEN 1 ELSE 0) IN
  /\ proc[w] = "up" /\ seat[w, s].tok = 0 /\ seat[w, s].seen >= 0
  /\ TokenCompared => seat[w, s].seen = shard[s].token
  /\ LivingTakes => Able(w)
  /\ shard' = [shard EXCEPT ![s].owner = w, ![s].freed = FALSE, ![s].token = token,
                            ![s].epochs = @ + 1,
                            ![s].wrote = IF token = shard[s].token THEN @ ELSE 0]
  /\ seat' = [seat EXCEPT ![w, s] = [NoSeat EXCEPT !.tok = token, !.ep = shard[s].epochs + 1,
                                                   !.base = End(s), !.era = now]]
  /\ hand' = IF s = 1 THEN [hand EXCEPT ![w] = ""] ELSE hand
  /\ UNCHANGED <<row, over, message, server, proc, late, platform, made, left, bad>>

Ours(w, s) == shard[s].owner = w /\ shard[s].token = seat[w, s].tok
\* The highest token that the worker has asked for, and whether the shard has one of its.
Top(w, s) == IF AskedKept /\ seat[w, s].asked > seat[w, s].tok THEN seat[w, s].asked ELSE seat[w, s].tok
Known(w, s) == shard[s].owner = w /\ shard[s].token \in seat[w, s].tok..Top(w, s)
\* Whoever waits for a commit of unknown fate is told that it is not there.
ToldNot(s) == late' = IF late # None /\ late.s = s THEN [late EXCEPT !.told = TRUE] ELSE late

HandsOver(w, s) ==
  /\ proc[w] = "up" /\ seat[w, s].tok # 0 /\ Known(w, s) /\ Spend /\ ToldNot(s)
  /\ QuietHandOver /\ s = 1 => Quiet(w)
  /\ shard' = [shard EXCEPT ![s].freed = TRUE, ![s].wrote = 0,
                            ![s].token = IF TokenAfterHandOver THEN Top(w, s) + 1 ELSE @]
  /\ seat' = [seat EXCEPT ![w, s] = NoSeat]
  /\ hand' = IF QuietHandOver /\ s = 1 THEN [hand EXCEPT ![w] = ""] ELSE hand
  /\ UNCHANGED <<row, over, message, server, proc, platform, made, bad>>

\* It stands down, which is wrong if the shard is its own.
LosesSeat(w, s) ==
  /\ proc[w] = "up" /\ seat[w, s].tok # 0 /\ ~Known(w, s)
  /\ seat' = [seat EXCEPT ![w, s] = NoSeat]
  /\ bad' = IF shard[s].owner = w /\ seat[w, s].era = now THEN bad \cup {"O11"} ELSE bad
  /\ UNCHANGED <<database, server, proc, hand, late, platform, told, made, left>>

\* What was read: whether the log goes on from what is in hand, and an attempt of its own.
Read(w, s, token) ==
  LET lost == ~Has(s, seat[w, s].base)
      mine == entry.phase = "attempted" /\ entry.epoch = seat[w, s].ep IN
  IF lost /\ HeadCompared
  THEN seat' = [seat EXCEPT ![w, s] = NoSeat] /\ UNCHANGED hand
  ELSE /\ seat' = [seat EXCEPT ![w, s].tok = token, ![w, s].asked = 0, ![w, s].base = End(s),
                               ![w, s].doubt = FALSE, ![w, s].behind = @ \/ lost]
       /\ hand' = IF s = 1 /\ mine /\ hand[w] = "" THEN [hand EXCEPT ![w] = "armed"] ELSE hand

\* The next commit was refused: the log does not end where the worker believes.
ReadsAnew(w, s) ==
  /\ proc[w] = "up" /\ seat[w, s].tok # 0 /\ Ours(w, s) /\ ~seat[w, s].doubt
  /\ seat[w, s].base # End(s) /\ Read(w, s, seat[w, s].tok)
  /\ UNCHANGED <<database, server, proc, late, platform, told, made, left, bad>>

AfterDoubt(w, s) ==
  LET token == IF TokenAfterDoubt THEN Top(w, s) + 1 ELSE shard[s].token IN
  /\ proc[w] = "up" /\ seat[w, s].doubt /\ Known(w, s) /\ ToldNot(s)
  /\ shard' = [shard EXCEPT ![s].token = token, ![s].wrote = IF TokenAfterDoubt THEN 0 ELSE @]
  /\ Read(w, s, token)
  /\ UNCHANGED <<row, over, message, server, proc, platform, made, left, bad>>

\* The answer to the new token is lost, too, or the question never came there.
TokenUnanswered(w, s) ==
  LET token == Top(w, s) + 1 IN
  /\ TokenAfterDoubt /\ proc[w] = "up" /\ seat[w, s].doubt /\ Known(w, s) /\ Spend
  /\ seat' = [seat EXCEPT ![w, s].asked = token]
  /\ \/ shard' = [shard EXCEPT ![s].token = token, ![s].wrote = 0]
     \/ UNCHANGED shard
  /\ UNCHANGED <<row, over, message, server, proc, hand, late, platform, made, bad>>
=============================================================================
