------------------------------ MODULE Classes ------------------------------
(* The delivery classes of a part in Entry: the plan freezes them, and a channel that is
   attached later may offer others. With two of them the key counts inside of its window,
   and look-ups after it. Class editable stands here beside another one: the part goes
   out whole by the other class; once that gives no means any more it goes out by a
   placeholder and an edit, unless it may be there whole. An edit that is made again shows the
   same; the placeholder itself, and class editable alone, are in Live. *)
EXTENDS Integers

CONSTANTS
  Plan,        \* the classes that are frozen, as "keyed", "keyed+lookup" or "blind"
  Offers,      \* those of the channel that is attached later
  Ages,        \* the window of a key may end
  HonoursKey,  \* assumption: the platform honours the key
  Prompt,      \* assumption: an attempt inside of half the window lands inside of its other half
  PlanCounts,  \* guard: only what the plan froze is relied on
  OfferCounts, \* guard: only what the attached channel offers is relied on
  WindowCounts, \* guard: a key is relied on inside of its window
  WholeStays   \* guard: what may be there whole is not edited into a second message

VARIABLES
  swapped, \* another channel is attached
  window,  \* the log relies on the key of the part at hand
  how,     \* of the last attempt at the part at hand: "none", "whole" or "edit"
  known    \* what the platform could tell: <<part, class>>

more == <<swapped, window, how, known>>
Any == {"keyed", "lookup", "editable"}
ClassesOK(parts) ==
  /\ {swapped, window} \subseteq BOOLEAN /\ how \in {"none", "whole", "edit"}
  /\ known \subseteq (0..(parts - 1)) \X Any
Fresh == swapped = FALSE /\ window = TRUE /\ how = "none" /\ known = {}
Of(name) ==
  CASE name = "blind" -> {}
    [] name = "keyed+lookup" -> {"keyed", "lookup"}
    [] name = "keyed+editable" -> {"keyed", "editable"}
    [] name = "lookup+editable" -> {"lookup", "editable"}
    [] OTHER -> {name}
Offered == IF swapped THEN Of(Offers) ELSE Of(Plan)
InForce ==
  (IF PlanCounts THEN Of(Plan) ELSE Any) \cap (IF OfferCounts THEN Offered ELSE Any)
Lasting == IF window \/ ~WindowCounts THEN InForce ELSE InForce \ {"keyed"}
\* An attempt goes out by the best class that is left, and whole without any.
NextHow == IF Lasting = {"editable"} THEN "edit" ELSE "whole"
\* What settles a doubt.
Means ==
  IF how = "edit" THEN Lasting \cap {"editable"}
  ELSE IF WholeStays THEN Lasting \ {"editable"} ELSE Lasting
ByKey == "keyed" \in Means
ByLookup == ~ByKey /\ "lookup" \in Means
ByEdit == Means = {"editable"}
By(classes, way) ==
  IF way = "edit" THEN classes \cap {"editable"} ELSE classes \ {"editable"}

\* The platform knows the key of a request: r = <<part, attempt, classes of its channel>>.
Again(r) ==
  \/ "keyed" \in r[3] /\ HonoursKey /\ <<r[1], "keyed">> \in known
  \/ "editable" \in r[3] /\ <<r[1], "editable">> \in known

\* The next life attaches a channel that offers something else.
Swaps ==
  Offers # Plan /\ ~swapped /\ swapped' = TRUE /\ UNCHANGED <<window, how, known>>

Closes == Ages /\ window /\ window' = FALSE /\ UNCHANGED <<swapped, how, known>>

\* The platform forgets a key later than the log: the log relies on half of its window.
Drops(p) ==
  /\ ~window /\ <<p, "keyed">> \in known
  /\ known' = known \ {<<p, "keyed">>} /\ UNCHANGED <<swapped, window, how>>
=============================================================================
