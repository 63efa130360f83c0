"""The mutants of the dashboard: access control, and acts that do exactly what their
preview showed."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_D = "turnfold_cli.dashboard"
_TESTS = "test:contract/test_dashboard.py"
_ACTS = "test:contract/test_dashboard_acts.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "guard", where, old, new, *killers)


DASHBOARD: Final = (
    _broken(
        "the dashboard answers to every host name",
        f"{_D}.guard:refusal",
        "asked.headers.get('host', '').lower() not in site.hosts()",
        "False",
        f"{_TESTS}::another_host_name",
    ),
    _broken(
        "the dashboard takes forms of other sites",
        f"{_D}.guard:refusal",
        "changes and (not _from_here(site, asked.headers))",
        "False",
        f"{_TESTS}::a_form_of_another_site",
    ),
    _broken(
        "the dashboard is read without the token",
        f"{_D}.guard:refusal",
        "asked.session is None",
        "False",
        f"{_TESTS}::nobody_reads_without_it",
    ),
    _broken(
        "the dashboard takes a form without its word",
        f"{_D}.guard:refusal",
        "changes and (not _has_word(asked.session, asked.form))",
        "False",
        f"{_ACTS}::without_the_word",
    ),
    _broken(
        "the dashboard listens elsewhere without a token",
        f"{_D}.site:check",
        "site.token is None and (not site.local)",
        "False",
        f"{_TESTS}::would_let_anybody_in",
    ),
    _broken(
        "a dashboard that only reads decides",
        f"{_D}.app:Dashboard._actor",
        "_session(request) if self.site.acts else None",
        "_session(request)",
        f"{_ACTS}::only_reads_decides_nothing",
    ),
    _broken(
        "a preview serves whoever has its name",
        f"{_D}.deciding:Desk.decide",
        "ready is None or ready.of != session.key",
        "ready is None",
        f"{_ACTS}::of_no_use_to_another",
    ),
    _broken(
        "a preview is used twice",
        f"{_D}.deciding:Desk.decide",
        "self.ready.take(form['preview'])",
        "pass",
        f"{_ACTS}::used_once",
    ),
    _broken(
        "the dashboard acts on whatever it is by now",
        f"{_D}.deciding:_chosen",
        "return Chosen(id=row.id, version=row.version)",
        "return Chosen(id=row.id)",
        f"{_ACTS}::has_moved_since",
    ),
    _broken(
        "the dashboard opens a gate that was closed again",
        f"{_D}.deciding:Desk._move",
        "now.get(p) != ready.gates.get(p)",
        "False",
        f"{_ACTS}::closed_again",
    ),
    _broken(
        "an act makes a store where none is any more",
        "turnfold_cli.acting:act_on",
        "await _still_there(address)",
        "pass",
        f"{_ACTS}::work_that_fails",
    ),
    _broken(
        "a value is put on a page with its hidden characters",
        f"{_D}.looks:_as_data",
        "value if isinstance(value, Markup) else clean(value)",
        "value",
        f"{_TESTS}::data_on_every_page",
    ),
    _broken(
        "a log-in leads to another site",
        f"{_D}.app:_inner",
        "'/' if outer else where",
        "where",
        f"{_TESTS}::leads_to_no_other_site",
    ),
)
