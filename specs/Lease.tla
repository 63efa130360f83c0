------------------------------- MODULE Lease -------------------------------
(* Who may write to a store in PostgreSQL that several hosts share, and who may send
   (specs/postgres.md): lives of workers with their leases, shards with their owners, tokens
   and epochs, proofs of death, and seats that are handed over are in `Seats.tla`; here are
   commits of unknown fate, the inbox, the wire, a server that goes back to an earlier state,
   and the invariants O1 to O11. *)
EXTENDS Seats

(* ---- commits ---- *)
OutOfDoubt ==
  CASE Class = "keyed" -> {"retry"}
    [] Class = "blind" -> IF BlindParks THEN {"parked"} ELSE {"retry"}
    [] OTHER -> IF landed > 0 THEN {"delivered"}
                ELSE IF wire = 0 \/ ~AbsenceWaits THEN {"retry"} ELSE {}
Unknown == IF DoubtStays THEN {"doubt"} ELSE {"retry"}
OfMessage(w) ==
  LET mine == entry.epoch = seat[w, 1].ep IN
  CASE entry.phase \in {"queued", "retry"} ->
         IF entry.attempts < 2 /\ (hand[w] = "" \/ ~mine) THEN {"attempted"} ELSE {}
    [] entry.phase = "attempted" /\ mine ->
         IF hand[w] = "yes" THEN {"delivered"} ELSE IF hand[w] = "timeout" THEN Unknown ELSE {}
    [] entry.phase = "attempted" /\ ~mine -> Unknown
    [] entry.phase = "doubt" -> OutOfDoubt
    [] OTHER -> {}
OfInbox == {"accepted"} \cup (IF box.waiting THEN {"logged"} ELSE {})

\* A new worker on a server that went back says so first.
Events(w, s) ==
  IF seat[w, s].era > noted THEN {"restored"}
  ELSE IF s # 1 \/ Class = "none" THEN {"noted"}
  ELSE IF Class = "inbox" THEN OfInbox ELSE OfMessage(w)

Statement(w, s, event) ==
  [life |-> w, s |-> s, token |-> seat[w, s].tok, base |-> seat[w, s].base, event |-> event,
   ep |-> seat[w, s].ep, era |-> seat[w, s].era, behind |-> seat[w, s].behind, told |-> FALSE]
Fits(c) ==
  /\ TokenChecked => c.token = shard[c.s].token
  /\ OwnerChecked => c.life = shard[c.s].owner
  /\ PlaceChecked => c.base = End(c.s)

Turn == IF box.key = "accepted" THEN "accepted" ELSE "posted"
Decided(event) ==
  CASE event = "logged" ->
         /\ box' = [key |-> "posted", waiting |-> ~LeavesInbox, logged |-> box.logged + 1]
         /\ UNCHANGED told
    [] event = "accepted" /\ box.key = "promised" /\ PromisesKept ->
         told' = told \cup {"posted"} /\ UNCHANGED box
    [] event = "accepted" /\ box.key \in {"posted", "accepted"} ->
         told' = told \cup {Turn} /\ UNCHANGED box
    [] event = "accepted" /\ (box.key = "" \/ (box.key = "promised" /\ ~PromisesKept)) ->
         box' = [box EXCEPT !.key = "accepted"] /\ told' = told \cup {"accepted"}
    [] OTHER -> UNCHANGED <<box, told>>
Moved(c) ==
  CASE c.event = "attempted" ->
         [phase |-> "attempted", epoch |-> c.ep, attempts |-> entry.attempts + 1]
    [] c.event = "restored" /\ RestoredHeld /\ entry.phase # "delivered" ->
         [entry EXCEPT !.phase = "parked"]
    [] c.event \in {"doubt", "retry", "delivered", "parked"} -> [entry EXCEPT !.phase = c.event]
    [] OTHER -> entry
Wrong(c) ==
  LET at == shard[c.s] IN
  (IF at.wrote \notin {0, c.life} /\ c.token = at.token THEN {"O1"} ELSE {})
  \cup (IF c.base # End(c.s) \/ c.token < at.last THEN {"O2"} ELSE {})
  \cup (IF c.told THEN {"O4"} ELSE {})
  \cup (IF entry.phase = "delivered" /\ Moved(c).phase # "delivered" THEN {"O6"} ELSE {})
  \cup (IF c.behind THEN {"O10"} ELSE {})

Store(c) ==
  /\ made < Records /\ made' = made + 1
  /\ shard' = [shard EXCEPT ![c.s].log = Append(@, made + 1), ![c.s].last = c.token,
                            ![c.s].wrote = IF c.token = shard[c.s].token THEN c.life ELSE @]
  /\ entry' = Moved(c) /\ Decided(c.event) /\ bad' = bad \cup Wrong(c)
  /\ noted' = IF c.event = "restored" THEN c.era ELSE noted
  /\ UNCHANGED <<row, over, server, proc, platform>>

May(w, s) == proc[w] = "up" /\ seat[w, s].tok # 0 /\ ~seat[w, s].doubt
Ends == {"delivered", "doubt", "retry", "parked", "restored"}

Commits(w, s) ==
  /\ May(w, s)
  /\ \E event \in Events(w, s) : LET c == Statement(w, s, event) IN
       /\ Fits(c) /\ Store(c) /\ seat' = [seat EXCEPT ![w, s].base = made + 1]
       /\ hand' = [hand EXCEPT ![w] = IF event \in Ends THEN ""
                                      ELSE IF event = "attempted" THEN "armed" ELSE @]
  /\ UNCHANGED <<late, left>>

AnswerLost(w, s) ==
  /\ May(w, s) /\ Spend
  /\ \E event \in Events(w, s) : LET c == Statement(w, s, event) IN Fits(c) /\ Store(c)
  /\ seat' = [seat EXCEPT ![w, s].doubt = TRUE]
  /\ UNCHANGED <<hand, late>>

UnderWay(w, s) ==
  /\ May(w, s) /\ Spend /\ late = None
  /\ \E event \in Events(w, s) : late' = Statement(w, s, event)
  /\ seat' = [seat EXCEPT ![w, s].doubt = TRUE]
  /\ UNCHANGED <<database, server, proc, hand, platform, told, made, bad>>

LateStored ==
  late # None /\ Fits(late) /\ Store(late) /\ late' = None /\ UNCHANGED <<seat, hand, left>>
LateRefused ==
  /\ late # None /\ ~Fits(late) /\ late' = None
  /\ UNCHANGED <<database, server, proc, seat, hand, platform, told, made, left, bad>>

(* ---- the inbox: any host posts, without a seat ---- *)
Posts ==
  /\ Class = "inbox" /\ ~box.waiting /\ box.logged = 0
  /\ IF box.key # "" /\ KeysKept
     THEN told' = told \cup {Turn} /\ UNCHANGED box
     ELSE /\ told' = told \cup {"posted"}
          /\ box' = [box EXCEPT !.waiting = TRUE, !.key = IF @ = "" THEN "promised" ELSE @]
  /\ UNCHANGED <<row, over, shard, entry, noted, server, proc, seat, hand, late, platform, made, left, bad>>

(* ---- the wire ---- *)
Hand(w, from, to) ==
  /\ hand[w] = from /\ hand' = [hand EXCEPT ![w] = to]
  /\ UNCHANGED <<database, server, proc, seat, late, told, made, left, bad>>
\* Without its guard: before the attempt is stored.
Early(w) ==
  /\ ~DurableFirst /\ May(w, 1) /\ entry.phase \in {"queued", "retry"} /\ Hand(w, "", "armed")
  /\ UNCHANGED platform
Sends(w) == wire < 2 /\ Hand(w, "armed", "wire") /\ wire' = wire + 1 /\ UNCHANGED landed
Lands ==
  /\ wire > 0 /\ landed < 2 /\ wire' = wire - 1 /\ landed' = landed + 1
  /\ UNCHANGED <<database, server, proc, seat, hand, late, told, made, left, bad>>
Answered(w) == landed > 0 /\ Hand(w, "wire", "yes") /\ UNCHANGED platform
TimesOut(w) == Hand(w, "wire", "timeout") /\ UNCHANGED platform

(* ---- a failover ---- *)
Lags ==
  /\ copy = <<>> /\ now <= Failovers /\ copy' = database
  /\ UNCHANGED <<database, now, proc, seat, hand, late, platform, told, made, left, bad>>
FailsOver ==
  /\ copy # <<>> /\ copy' = <<>> /\ now' = now + 1 /\ late' = None
  /\ row' = copy[1] /\ over' = copy[2] /\ shard' = copy[3]
  /\ entry' = copy[4] /\ box' = copy[5] /\ noted' = copy[6]
  /\ UNCHANGED <<proc, seat, hand, platform, told, made, left, bad>>
\* Only a worker whose head the log has says that nothing is missing.
Notes(w, s) ==
  /\ May(w, s) /\ noted < now /\ seat[w, s].era <= noted /\ Has(s, seat[w, s].base)
  /\ noted' = now
  /\ UNCHANGED <<row, over, shard, entry, box, server, proc, seat, hand, late, platform, told, made, left, bad>>

OfLife(w) ==
  \/ Register(w) \/ LeaseEnds(w) \/ Revived(w) \/ Dies(w) \/ Goodbye(w) \/ SeenGone(w)
  \/ Certified(w) \/ WatchdogEnds(w) \/ Watchdog(w) \/ Silent(w) \/ Believed(w)
  \/ Early(w) \/ Sends(w) \/ Answered(w) \/ TimesOut(w)
OfSeat(w, s) ==
  \/ Finds(w, s) \/ Takes(w, s) \/ HandsOver(w, s) \/ LosesSeat(w, s) \/ ReadsAnew(w, s)
  \/ AfterDoubt(w, s) \/ TokenUnanswered(w, s) \/ Commits(w, s) \/ AnswerLost(w, s) \/ UnderWay(w, s) \/ Notes(w, s)
Next ==
  \/ LateStored \/ LateRefused \/ Posts \/ Lands \/ Lags \/ FailsOver
  \/ \E w \in W : OfLife(w) \/ \E s \in S : OfSeat(w, s)
\* A dead worker's lease ends, and somebody looks at it and at the free shards.
Progress ==
  \/ \E w \in W : (proc[w] = "down" /\ LeaseEnds(w)) \/ Silent(w)
  \/ \E w \in W, s \in S : Finds(w, s) \/ Takes(w, s) \/ LosesSeat(w, s) \/ ReadsAnew(w, s)
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety: the invariants of ownership ---- *)
O1 == "O1" \notin bad  \* one writer under one token of a shard
O2 == "O2" \notin bad  \* the log is in the order of tokens, and no position is missing
O3 ==                  \* expired and dead are final, but for a server that went back
  [][\A w \in W : row[w] \in {"expired", "dead"} => row'[w] = row[w] \/ now' > now]_vars
O4 == "O4" \notin bad  \* told "not stored" means never stored
O5 == Class \in {"lookup", "blind"} => landed < 2  \* no message twice
O6 == "O6" \notin bad  \* evidence stays
O7 == entry.phase = "delivered" => landed > 0      \* delivered means shown
O9 == box.logged < 2 /\ Cardinality(told) < 2      \* one message, one turn
O10 == "O10" \notin bad  \* a log that lacks a head in hand is never appended to
O11 == "O11" \notin bad  \* nobody stands down from a shard that is its own
Grows ==               \* tokens and epochs only grow, but for a server that went back
  [][\A s \in S : \/ shard'[s].token >= shard[s].token /\ shard'[s].epochs >= shard[s].epochs
                  \/ now' > now]_vars

(* ---- liveness ---- *)
Served(s) == \E w \in W : Able(w) /\ seat[w, s].tok # 0 /\ Ours(w, s)
O8 == <>[]((\E w \in W : Able(w)) => \A s \in S : Served(s))  \* each shard finds a worker
=============================================================================
