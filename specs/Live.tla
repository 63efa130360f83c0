-------------------------------- MODULE Live --------------------------------
(* A part of class editable, as a live reply or as a whole text (specs/design.md 4): its
   placeholder, the previews that no log tells of, its seal, and the edits that show the
   sealed text. One worker at a time, as in Entry. There is no clock: whatever takes time
   may take any time, but for what the assumption says. *)
EXTENDS Integers, FiniteSets

CONSTANTS
  Grows,       \* a live reply: it is sealed later; else the text is there from the start
  Budget,      \* attempts; a placeholder that stands gives its own back
  Faults,      \* how much may go wrong: crashes, refusals, lost answers, a message that is gone
  Quiet,       \* assumption: a preview that nobody waits for lands before the seal, or never
  SealWaits,   \* guard: the seal waits for the preview under way
  FinalWaits,  \* guard: the text waits for the outcome of its placeholder
  EditsAgain,  \* guard: an edit in doubt is made again, and nothing is sent beside it
  RemadeOnce,  \* guard: an empty placeholder in doubt is made again once
  HandleStays, \* guard: a late placeholder does not take the place of one that stands
  DoubtStays   \* guard: a message that may show the text is not taken back

VARIABLES
  phase, handle, sealed, att, used, doubt, remade, abort, reason,  \* the log
  owner,    \* a living worker waits for the answer to the attempt
  act,      \* of the last attempt: "none", "placeholder", "edit" or "send"
  showing,  \* the worker waits for the answer to a preview
  wire,     \* requests on their way: <<what, message or 0, attempt>>
  made,     \* messages that stand, or stood: their number is their name
  shown,    \* per message: "none", "empty", "preview", "text", "gone"
  forgot,   \* placeholders whose outcome nobody learned
  left      \* what may still go wrong
vars == <<phase, handle, sealed, att, used, doubt, remade, abort, reason, owner, act,
          showing, wire, made, shown, forgot, left>>
seen == <<made, shown, forgot>>
known == <<phase, handle, sealed, att, used, doubt, remade, abort, reason, owner, act>>
rest == <<handle, sealed, remade, abort, act, showing, seen>>

Closed == {"delivered", "failed", "aborted"}
Messages == 1..(3 + Faults)
Texts == {m \in Messages : shown[m] = "text"}
Previews == {r \in wire : r[1] = "preview"}

TypeOK ==
  /\ phase \in {"queued", "retryable", "dispatched", "in_doubt", "parked"} \cup Closed
  /\ handle \in 0..made /\ made \in 0..(3 + Faults) /\ used \in 0..(Budget + Faults)
  /\ att \in 0..(2 * Budget + 2 * Faults)
  /\ {sealed, doubt, remade, abort, owner, showing} \subseteq BOOLEAN
  /\ reason \in {"none", "no", "unknown"} /\ left \in 0..Faults

Init ==
  /\ phase = "queued" /\ handle = 0 /\ sealed = ~Grows /\ att = 0 /\ used = 0
  /\ doubt = FALSE /\ remade = FALSE /\ abort = FALSE /\ reason = "none"
  /\ owner = FALSE /\ act = "none" /\ showing = FALSE /\ wire = {}
  /\ made = 0 /\ shown = [m \in Messages |-> "none"] /\ forgot = 0 /\ left = Faults

Spend == left > 0 /\ left' = left - 1
Request == CHOOSE r \in wire : r[1] = act /\ r[3] = att
OnWire == \E r \in wire : r[1] = act /\ r[3] = att

(* ---- attempts ---- *)
NextAct == IF handle = 0 THEN "placeholder" ELSE "edit"
Repeatable ==
  IF handle = 0 THEN (act # "send") /\ (~RemadeOnce \/ ~remade) ELSE TRUE
Calm == Quiet => showing \/ Previews = {}

Sends(what, target) ==
  /\ ~abort /\ (sealed => used < Budget)
  /\ phase' = "dispatched" /\ act' = what /\ owner' = TRUE
  /\ att' = att + 1 /\ used' = used + 1
  /\ remade' = (remade \/ (what = "placeholder" /\ doubt))
  /\ wire' = wire \cup {<<what, target, att + 1>>}
  /\ UNCHANGED <<handle, sealed, doubt, abort, reason, showing, seen, left>>

Ready == phase \in {"queued", "retryable"} \/ (phase = "in_doubt" /\ Repeatable)
Placeholder == Ready /\ handle = 0 /\ act # "send" /\ Sends("placeholder", 0)
Edit ==
  /\ Ready /\ handle # 0 /\ sealed /\ Calm
  /\ IF EditsAgain \/ phase # "in_doubt" THEN Sends("edit", handle) ELSE Sends("send", 0)

\* Without its guard: the text goes out while its placeholder is under way.
Overtakes ==
  /\ ~FinalWaits /\ phase = "dispatched" /\ act = "placeholder" /\ sealed
  /\ Sends("send", 0)

(* ---- the platform ---- *)
Landed(r) ==
  IF r[2] = 0
  THEN /\ made' = made + 1
       /\ shown' = [shown EXCEPT ![made + 1] = IF r[1] = "send" THEN "text" ELSE "empty"]
  ELSE /\ made' = made
       /\ shown' = [shown EXCEPT ![r[2]] =
            IF @ \in {"none", "gone"} THEN @ ELSE IF r[1] = "edit" THEN "text" ELSE "preview"]

Lands ==
  \E r \in wire :
    /\ Landed(r) /\ wire' = wire \ {r}
    /\ UNCHANGED <<known, showing, forgot, left>>

Vanishes ==
  \E r \in wire :
    /\ wire' = wire \ {r}
    /\ UNCHANGED <<known, showing, seen, left>>

\* A reader, or the platform, removes the message.
Removed ==
  /\ handle # 0 /\ shown[handle] \notin {"gone", "none"} /\ phase \notin Closed /\ Spend
  /\ shown' = [shown EXCEPT ![handle] = "gone"]
  /\ UNCHANGED <<known, showing, wire, made, forgot>>

(* ---- outcomes ---- *)
Stands(m) == m \in 1..made /\ m # handle /\ shown[m] = "empty"

\* A handle is no receipt: the text is still to be shown.
Named(m) ==
  /\ phase' = "queued" /\ handle' = m /\ doubt' = FALSE
  /\ used' = (IF used = 0 THEN 0 ELSE used - 1)
  /\ UNCHANGED <<sealed, att, remade, abort, reason, act, showing, wire, seen, left>>

Placed ==
  /\ phase = "dispatched" /\ owner /\ act = "placeholder" /\ ~OnWire
  /\ \E m \in Messages : Stands(m) /\ Named(m)
  /\ owner' = FALSE

\* The answer comes after the attempt was given up.
LatePlaced ==
  /\ phase = "in_doubt" /\ (HandleStays => handle = 0) /\ UNCHANGED owner
  /\ \E m \in Messages : Stands(m) /\ Named(m)

\* A placeholder too many: the log tells of it, so that it can be taken back.
Stray ==
  \E m \in Messages :
    /\ Stands(m) /\ forgot > 0 /\ ~(phase = "in_doubt" /\ handle = 0)
    /\ shown' = [shown EXCEPT ![m] = "none"]
    /\ UNCHANGED <<known, showing, wire, made, forgot, left>>

Delivered ==
  /\ phase = "dispatched" /\ owner /\ act # "placeholder" /\ ~OnWire /\ Texts # {}
  /\ phase' = "delivered" /\ owner' = FALSE /\ doubt' = FALSE
  /\ UNCHANGED <<rest, att, used, reason, wire, left>>

\* Proven not taken. That proves nothing of an older attempt in doubt.
NotTaken(to, refund) ==
  /\ phase = "dispatched" /\ owner /\ OnWire
  /\ phase' = (IF doubt THEN "in_doubt" ELSE to)
  /\ owner' = FALSE /\ wire' = wire \ {Request} /\ used' = used - refund
  /\ UNCHANGED <<sealed, att, doubt, remade, abort, act, showing, seen>>

Refused == Spend /\ NotTaken("retryable", 0) /\ UNCHANGED <<handle, reason>>
Deferred == Spend /\ NotTaken("queued", 1) /\ UNCHANGED <<handle, reason>>
HandleGone ==
  /\ act = "edit" /\ handle # 0 /\ shown[handle] = "gone"
  /\ handle' = (IF doubt THEN handle ELSE 0)
  /\ NotTaken("retryable", 0) /\ UNCHANGED <<reason, left>>
\* The target takes nothing more, from anybody.
FailedPermanent ==
  /\ ~doubt /\ Spend /\ NotTaken("failed", 0) /\ reason' = "no" /\ UNCHANGED handle

\* Evidence that nobody asked for any more.
LateReceipt ==
  /\ phase \in {"dispatched", "in_doubt", "parked", "failed"} /\ doubt /\ Texts # {}
  /\ phase' = "delivered" /\ reason' = "none" /\ doubt' = FALSE /\ owner' = FALSE
  /\ UNCHANGED <<rest, att, used, wire, left>>

Unknown(refund) ==
  /\ phase' = "in_doubt" /\ doubt' = TRUE /\ owner' = FALSE /\ used' = used - refund
  /\ forgot' = forgot + (IF act = "placeholder" THEN 1 ELSE 0)
  /\ UNCHANGED <<handle, sealed, att, remade, abort, reason, act, showing, wire, made, shown>>
AnswerLost == phase = "dispatched" /\ owner /\ Spend /\ Unknown(0)
NoAnswer ==
  /\ phase = "dispatched" /\ owner /\ ~OnWire /\ UNCHANGED left /\ Unknown(0)
  /\ IF act = "placeholder" THEN \A m \in Messages : ~Stands(m) ELSE Texts = {}
OwnerDied == phase = "dispatched" /\ ~owner /\ UNCHANGED left /\ Unknown(1)

\* The worker dies, with its attempt and its preview.
Crash ==
  /\ owner \/ showing
  /\ Spend /\ owner' = FALSE /\ showing' = FALSE
  /\ UNCHANGED <<phase, handle, sealed, att, used, doubt, remade, abort, reason, act,
                 wire, seen>>

(* ---- while it grows ---- *)
Open == phase \notin Closed /\ ~abort

Preview ==
  /\ Grows /\ Open /\ ~sealed /\ handle # 0 /\ ~showing /\ left > 0
  /\ showing' = TRUE /\ wire' = wire \cup {<<"preview", handle, 0>>}
  /\ UNCHANGED <<known, seen, left>>
Shown ==
  /\ showing /\ Previews = {} /\ showing' = FALSE
  /\ UNCHANGED <<known, wire, seen, left>>
PreviewLost ==
  /\ showing /\ Spend /\ showing' = FALSE
  /\ UNCHANGED <<known, wire, seen>>

Sealed ==
  /\ ~sealed /\ Open /\ (SealWaits => ~showing)
  /\ sealed' = TRUE
  /\ UNCHANGED <<phase, handle, att, used, doubt, remade, abort, reason, owner, act,
                 showing, wire, seen, left>>

(* ---- ends ---- *)
Ends(to, why) ==
  /\ phase' = to /\ reason' = why
  /\ UNCHANGED <<rest, att, used, doubt, owner, wire, left>>

Exhausted ==
  \/ phase \in {"queued", "retryable"} /\ sealed /\ used >= Budget /\ Ends("failed", "no")
  \/ phase = "in_doubt" /\ sealed /\ used >= Budget /\ Ends("failed", "unknown")
Parked == phase = "in_doubt" /\ ~Repeatable /\ Ends("parked", "none")
Expired ==
  \/ phase \in {"queued", "retryable"} /\ Ends("failed", "no")
  \/ phase \in {"in_doubt", "parked"} /\ Ends("failed", "unknown")
GivenUp == phase = "in_doubt" /\ abort /\ Ends("failed", "unknown")
AbortRequested ==
  /\ Open /\ abort' = TRUE
  /\ UNCHANGED <<phase, handle, sealed, att, used, doubt, remade, reason, owner, act,
                 showing, wire, seen, left>>
Aborted == phase \in {"queued", "retryable"} /\ abort /\ Ends("aborted", "none")

\* Its placeholder says nothing any more.
Retracted ==
  /\ phase \in {"failed", "aborted"} /\ handle # 0 /\ (DoubtStays => ~doubt)
  /\ shown[handle] \notin {"none", "gone"}
  /\ shown' = [shown EXCEPT ![handle] = "none"]
  /\ UNCHANGED <<known, showing, wire, made, forgot, left>>

Progress ==
  Placeholder \/ Edit \/ Lands \/ Placed \/ Delivered \/ HandleGone \/ NoAnswer \/ OwnerDied
  \/ Shown \/ Sealed \/ Exhausted \/ Parked \/ GivenUp \/ Aborted
Trouble ==
  Vanishes \/ Removed \/ LatePlaced \/ Stray \/ Refused \/ Deferred \/ FailedPermanent
  \/ LateReceipt \/ AnswerLost \/ Crash \/ Preview \/ PreviewLost \/ Overtakes \/ Expired \/ AbortRequested \/ Retracted
Next == Progress \/ Trouble
Spec == Init /\ [][Next]_vars /\ WF_vars(Progress) /\ SF_vars(Sealed)
Unfair == Init /\ [][Next]_vars  \* liveness must fail here

(* ---- safety ---- *)
Once == Cardinality(Texts) < 2                                                \* INV-2
WriteAhead == \A r \in wire : r[3] <= att                                     \* INV-3
\* The last word on the screen is the sealed text, unless somebody removed it.
Proven ==                                                                     \* INV-4
  phase = "delivered" => \E m \in Messages : shown[m] \in {"text", "gone"}
Counted == used <= att                                                        \* INV-6
SaysNo == phase \in {"queued", "retryable", "aborted"} \/ (phase = "failed" /\ reason = "no")
Truthful == SaysNo => Texts = {} /\ \A r \in wire : r[1] \notin {"edit", "send"} \* INV-11, INV-12
NotEarly == Texts # {} => sealed
Empties == {m \in Messages : shown[m] = "empty" /\ m # handle}
\* At worst an empty placeholder stands there twice, as long as nobody removes messages.
Twice ==
  /\ phase # "dispatched" => Cardinality(Empties) <= forgot
  /\ forgot > 2 => \E m \in Messages : shown[m] = "gone"

AnswerStays == [][\A m \in Messages : shown[m] = "text" => shown'[m] # "none"]_vars
AfterAbort ==                                                                 \* INV-11
  [][abort => {r \in wire' : r[1] # "preview"} \subseteq wire]_vars

(* ---- liveness ---- *)
Settled == <>[](phase \in Closed \cup {"parked"})                             \* INV-14
=============================================================================
