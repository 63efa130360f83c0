------------------------------- MODULE Entry -------------------------------
(* An outbox entry and its parts (specs/design.md 4), one step per commit of its log, with the
   wire and what the user sees beside it. One worker at a time: a dead owner is known to be dead.
   There is no clock: expiry and time-outs may come at any time. The classes of a part are in
   Classes; class editable alone is in Live; redrive and operators are not here. *)
EXTENDS Integers, FiniteSets, Classes

CONSTANTS
  Parts,       \* how many parts, sent in order
  Budget,      \* attempts per part
  Faults,      \* how much may go wrong: crashes, refusals, lost answers, deferrals
  Settles,     \* assumption: a look-up comes after everything old has landed
  Skew         \* assumption: clocks differ by no more than is declared, so a look-up overlooks nothing

VARIABLES
  phase, part, att, used, doubt, abort,  \* the log
  reason,  \* why F: "none", "no" (not delivered) or "unknown"
  spoiled, \* a part was refused or bounced: the entry can no more be delivered whole
  refused, \* the parts that the platform will never accept
  owner,   \* a living worker holds the attempt
  wire,    \* requests on their way: <<part, attempt, classes of their channel>>
  taken,   \* per part: how often the user sees it
  left     \* what may still go wrong

vars == <<phase, part, att, used, doubt, abort, reason, spoiled, refused, owner, wire, taken,
          left, more>>
log == <<phase, part, att, used, doubt, abort, reason, spoiled>>

Open == {"queued", "retryable", "attempted", "dispatched", "in_doubt", "parked"}
Closed == {"delivered", "failed", "aborted"}
Request == <<part, att, By(Offered, how)>>

TypeOK ==
  /\ phase \in Open \cup Closed
  /\ part \in 0..Parts /\ att \in 0..(Budget + Faults) /\ used \in 0..Budget
  /\ {doubt, abort, spoiled, owner} \subseteq BOOLEAN /\ ClassesOK(Parts)
  /\ reason \in {"none", "no", "unknown"} /\ refused \subseteq 0..(Parts - 1)
  /\ taken \in [0..(Parts - 1) -> 0..2] /\ left \in 0..Faults

Init ==
  /\ phase = "queued" /\ part = 0 /\ att = 0 /\ used = 0
  /\ doubt = FALSE /\ abort = FALSE /\ reason = "none" /\ spoiled = FALSE /\ refused = {}
  /\ owner = FALSE /\ wire = {} /\ taken = [p \in 0..(Parts - 1) |-> 0] /\ Fresh /\ left = Faults

(* ---- towards the wire ---- *)

MayResend == phase = "in_doubt" /\ (ByKey \/ ByEdit)

Attempted ==
  /\ phase \in {"queued", "retryable"} \/ MayResend
  /\ ~abort /\ used < Budget
  /\ phase' = "attempted" /\ att' = att + 1 /\ used' = used + 1 /\ owner' = TRUE
  /\ how' = IF phase = "in_doubt" /\ ByEdit THEN "edit" ELSE NextHow
  /\ UNCHANGED <<part, doubt, abort, reason, spoiled, refused, wire, taken, left>>
  /\ UNCHANGED <<swapped, window, known>>

\* The commit comes before the send; a crash between the two is a request that is lost.
Dispatched ==
  /\ phase = "attempted" /\ owner /\ ~abort
  /\ phase' = "dispatched" /\ wire' = wire \cup {Request}
  /\ UNCHANGED <<part, att, used, doubt, abort, reason, spoiled, refused, owner, taken, left, more>>

(* ---- the platform ---- *)

Shown(r) == IF Again(r) \/ taken[r[1]] = 2 THEN taken[r[1]] ELSE taken[r[1]] + 1
Lands ==
  \E r \in wire :
    /\ wire' = wire \ {r}
    /\ taken' = [taken EXCEPT ![r[1]] = Shown(r)]
    /\ known' = known \cup {<<r[1], class>> : class \in r[3]}
    /\ UNCHANGED <<log, refused, owner, swapped, window, how, left>>

Vanishes ==
  \E r \in wire : wire' = wire \ {r} /\ UNCHANGED <<log, refused, owner, more, taken, left>>

(* ---- outcomes ---- *)

\* The part at hand is over; the last one closes the entry. If another part bounced,
\* the entry ends as failed: it is delivered in part.
Last == part + 1 = Parts
Past ==
  /\ part' = part + 1 /\ att' = 0 /\ used' = 0 /\ doubt' = FALSE /\ window' = TRUE /\ how' = "none"
  /\ phase' = IF Last /\ ~spoiled THEN "delivered"
              ELSE IF Last \/ phase = "failed" THEN "failed" ELSE "queued"
  /\ reason' = IF Last /\ ~spoiled THEN "none"
               ELSE IF Last /\ phase # "failed" THEN "no" ELSE reason
  /\ owner' = FALSE
  /\ UNCHANGED <<abort, spoiled, refused, wire, swapped, known, taken, left>>

Delivered == phase = "dispatched" /\ owner /\ Request \notin wire /\ taken[part] > 0 /\ Past

\* Proven not accepted. That proves nothing of an older attempt in doubt.
NotAccepted(to, refund) ==
  /\ phase' = IF doubt THEN "in_doubt" ELSE to
  /\ used' = used - refund
  /\ owner' = FALSE /\ left' = left - 1
  /\ UNCHANGED <<part, att, doubt, abort, reason, spoiled, refused, taken, more>>

Refused(to, refund) ==
  /\ owner
  /\ \/ phase = "attempted" /\ UNCHANGED wire
     \/ phase = "dispatched" /\ Request \in wire /\ wire' = wire \ {Request}
  /\ NotAccepted(to, refund)

FailedRetryable == left > 0 /\ Refused("retryable", 0)
Deferred == left > 0 /\ Refused("queued", 1)

\* The target takes nothing more, from anybody: it ends the whole entry.
FailedPermanent ==
  /\ owner /\ left > 0 /\ ~doubt
  /\ \/ phase = "attempted" /\ UNCHANGED wire
     \/ phase = "dispatched" /\ Request \in wire /\ wire' = wire \ {Request}
  /\ phase' = "failed" /\ reason' = "no"
  /\ owner' = FALSE /\ left' = left - 1
  /\ UNCHANGED <<part, att, used, doubt, abort, spoiled, refused, taken, more>>

\* The platform will never take this part; the parts after it still go.
PartRefused ==
  /\ owner /\ left > 0 /\ ~doubt
  /\ \/ phase = "attempted" /\ UNCHANGED wire
     \/ phase = "dispatched" /\ Request \in wire /\ wire' = wire \ {Request}
  /\ refused' = refused \cup {part} /\ spoiled' = TRUE
  /\ part' = part + 1 /\ att' = 0 /\ used' = 0 /\ window' = TRUE /\ how' = "none"
  /\ phase' = IF Last THEN "failed" ELSE "queued"
  /\ reason' = IF Last THEN "no" ELSE reason
  /\ owner' = FALSE /\ left' = left - 1
  /\ UNCHANGED <<doubt, abort, swapped, known, taken>>

Unknown(lost, refund) ==
  /\ phase = "dispatched"
  /\ phase' = "in_doubt" /\ doubt' = TRUE /\ owner' = FALSE
  /\ left' = left - lost /\ used' = used - refund
  /\ UNCHANGED <<part, att, abort, reason, spoiled, refused, wire, taken, more>>

AnswerLost == owner /\ left > 0 /\ Unknown(1, 0)

(* ---- crash and recovery ---- *)

Crash ==
  /\ owner /\ left > 0
  /\ owner' = FALSE /\ left' = left - 1
  /\ UNCHANGED <<log, refused, wire, taken, more>>

\* A death is no failure of the message: it costs nothing.
OwnerDiedBefore ==
  /\ phase = "attempted" /\ ~owner
  /\ phase' = IF doubt THEN "in_doubt" ELSE "retryable"
  /\ used' = used - 1
  /\ UNCHANGED <<part, att, doubt, abort, reason, spoiled, refused, owner, wire, taken, left, more>>

OwnerDiedAfter == ~owner /\ Unknown(0, 1)

(* An abort that comes between `attempted` and `dispatched` ends the attempt. *)
AbortedAttempt ==
  /\ phase = "attempted" /\ owner /\ abort
  /\ phase' = IF doubt THEN "in_doubt" ELSE "queued"
  /\ owner' = FALSE /\ used' = used - 1
  /\ UNCHANGED <<part, att, doubt, abort, reason, spoiled, refused, wire, taken, left, more>>

(* ---- doubt ---- *)

Quiet == Settles => \A r \in wire : r[1] # part

Found == phase = "in_doubt" /\ ByLookup /\ <<part, "lookup">> \in known /\ Past

Absent ==
  /\ phase = "in_doubt" /\ ByLookup /\ Quiet /\ (Skew => <<part, "lookup">> \notin known)
  /\ phase' = "retryable" /\ doubt' = FALSE
  /\ UNCHANGED <<part, att, used, abort, reason, spoiled, refused, owner, wire, taken, left, more>>

Parked ==
  /\ phase = "in_doubt" /\ Means = {}
  /\ phase' = "parked"
  /\ UNCHANGED <<part, att, used, doubt, abort, reason, spoiled, refused, owner, wire, taken, left, more>>

\* The key's window is over, or no look-up can tell, ever: as if there were neither.
OutOfMeans ==
  /\ phase = "in_doubt" /\ Means # {}
  /\ phase' = "parked"
  /\ UNCHANGED <<part, att, used, doubt, abort, reason, spoiled, refused, owner, wire, taken, left, more>>

\* Evidence that nobody asked for any more; also while the next attempt is under way.
LateReceipt ==
  phase \in {"attempted", "dispatched", "in_doubt", "parked", "failed"} /\ doubt /\ taken[part] > 0 /\ Past

\* The platform takes back what it accepted. Nothing is sent again for that.
Bounced ==
  /\ part > 0 /\ ~spoiled /\ left > 0
  /\ spoiled' = TRUE /\ left' = left - 1
  /\ phase' = IF phase = "delivered" THEN "failed" ELSE phase
  /\ reason' = IF phase = "delivered" THEN "no" ELSE reason
  /\ UNCHANGED <<refused, part, att, used, doubt, abort, owner, wire, taken, more>>

(* ---- the channel and its key ---- *)
others == <<log, refused, owner, wire, taken, left>>
Swapped == ~owner /\ Swaps /\ UNCHANGED others
WindowOver == att > 0 /\ Closes /\ UNCHANGED others
Forgets ==
  (Prompt => ~owner /\ \A r \in wire : r[1] # part) /\ Drops(part) /\ UNCHANGED others

(* ---- ends ---- *)

Ends(why) ==
  /\ phase' = "failed" /\ reason' = why
  /\ UNCHANGED <<part, att, used, doubt, abort, spoiled, refused, owner, wire, taken, left, more>>

Exhausted ==
  \/ phase \in {"queued", "retryable"} /\ used = Budget /\ Ends("no")
  \/ phase = "in_doubt" /\ (ByKey \/ ByEdit) /\ (used = Budget \/ abort) /\ Ends("unknown")

Expired ==
  \/ phase \in {"queued", "retryable"} /\ Ends("no")
  \/ phase \in {"in_doubt", "parked"} /\ Ends("unknown")

AbortRequested ==
  /\ phase \in Open /\ ~abort /\ abort' = TRUE
  /\ UNCHANGED <<phase, part, att, used, doubt, reason, spoiled, refused, owner, wire, taken, left, more>>

Aborted ==
  /\ phase \in {"queued", "retryable"} /\ abort /\ phase' = "aborted"
  /\ UNCHANGED <<part, att, used, doubt, abort, reason, spoiled, refused, owner, wire, taken, left, more>>

(* What must happen at last; the rest may. *)
Progress ==
  Attempted \/ Dispatched \/ Lands \/ Delivered \/ OwnerDiedBefore \/ OwnerDiedAfter
  \/ AbortedAttempt \/ Found \/ Absent \/ Parked \/ Exhausted \/ Aborted
Trouble ==
  Vanishes \/ FailedRetryable \/ Deferred \/ FailedPermanent \/ PartRefused \/ AnswerLost \/ Crash
  \/ LateReceipt \/ Bounced \/ OutOfMeans \/ Expired \/ AbortRequested
  \/ Swapped \/ WindowOver \/ Forgets
\* A worker whose request has vanished hears of it at last.
NoAnswer == owner /\ Request \notin wire /\ taken[part] = 0 /\ Unknown(0, 0)

Next == Progress \/ Trouble \/ NoAnswer
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress) /\ WF_vars(NoAnswer)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety ---- *)

NoDoubleSend == \A p \in 0..(Parts - 1) : taken[p] < 2                        \* INV-2
WriteAhead == \A r \in wire : r[1] < part \/ (r[1] = part /\ r[2] <= att)    \* INV-3
Proven == \A p \in 0..(Parts - 1) : p < part /\ p \notin refused => taken[p] > 0  \* INV-4
NotTaken == \A p \in refused : taken[p] = 0 /\ \A r \in wire : r[1] # p           \* INV-12
InOrder == \A p \in 0..(Parts - 1) : taken[p] > 0 => p <= part                \* INV-7
Counted == used <= att                                                        \* INV-6
SaysNo == phase \in {"queued", "retryable", "aborted"} \/ (phase = "failed" /\ reason = "no")
Truthful ==                                                            \* INV-11, INV-12
  SaysNo /\ part < Parts => ~doubt /\ taken[part] = 0 /\ \A r \in wire : r[1] # part
Whole == phase = "delivered" => part = Parts /\ ~spoiled                        \* INV-1
NothingLeft == part = Parts => phase \in Closed                                \* INV-10

NumbersGrow == [][part' > part \/ att' >= att]_vars                            \* INV-6
AfterAbort == [][abort => wire' \subseteq wire]_vars                          \* INV-11

(* ---- liveness ---- *)

Rests == phase \in Closed \cup {"parked"}
Settled == <>[]Rests                                                          \* INV-14
=============================================================================
