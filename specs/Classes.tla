------------------------------ MODULE Classes ------------------------------
(* The delivery classes of a part in Entry: the plan freezes them, and a channel that is
   attached later may offer others. With two of them the key counts inside of its window,
   and look-ups after it. *)
EXTENDS Integers

CONSTANTS
  Plan,        \* the classes that are frozen: "keyed", "lookup", "keyed+lookup" or "blind"
  Offers,      \* those of the channel that is attached later
  Ages,        \* the window of a key may end
  HonoursKey,  \* assumption: the platform honours the key
  Prompt,      \* assumption: an attempt inside of half the window lands inside of its other half
  PlanCounts,  \* guard: only what the plan froze is relied on
  OfferCounts, \* guard: only what the attached channel offers is relied on
  WindowCounts \* guard: a key is relied on inside of its window

VARIABLES
  swapped, \* another channel is attached
  window,  \* the log relies on the key of the part at hand
  known    \* what the platform could tell: <<part, class>>

more == <<swapped, window, known>>
Any == {"keyed", "lookup"}
ClassesOK(parts) ==
  {swapped, window} \subseteq BOOLEAN /\ known \subseteq (0..(parts - 1)) \X Any
Fresh == swapped = FALSE /\ window = TRUE /\ known = {}
Of(name) ==
  IF name = "blind" THEN {} ELSE IF name = "keyed+lookup" THEN Any ELSE {name}
Offered == IF swapped THEN Of(Offers) ELSE Of(Plan)
InForce ==
  (IF PlanCounts THEN Of(Plan) ELSE Any) \cap (IF OfferCounts THEN Offered ELSE Any)
Means == IF window \/ ~WindowCounts THEN InForce ELSE InForce \ {"keyed"}
ByKey == "keyed" \in Means
ByLookup == ~ByKey /\ "lookup" \in Means

\* The platform knows the key of a request: r = <<part, attempt, classes of its channel>>.
Again(r) == "keyed" \in r[3] /\ HonoursKey /\ <<r[1], "keyed">> \in known

\* The next life attaches a channel that offers something else.
Swaps ==
  Offers # Plan /\ ~swapped /\ swapped' = TRUE /\ UNCHANGED <<window, known>>

Closes == Ages /\ window /\ window' = FALSE /\ UNCHANGED <<swapped, known>>

\* The platform forgets a key later than the log: the log relies on half of its window.
Drops(p) ==
  /\ ~window /\ <<p, "keyed">> \in known
  /\ known' = known \ {<<p, "keyed">>} /\ UNCHANGED <<swapped, window>>
=============================================================================
