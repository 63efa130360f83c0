"""The statement of a commit on PostgreSQL, as text: no server is asked."""

from turnfold_adapters.stores.postgres.statement import MANY, Values, of_many


def test_a_commit_without_keys_leaves_the_keys_of_others_in_their_statement() -> None:
    plain = Values((1, b"", 2, b"", 0, 1, "worker"), [[] for _ in range(7)])
    keyed = Values(plain.head, [*plain.tables[:4], [("key", "name")], [], []])
    assert of_many(MANY, [0, 1], [plain, keyed])[0] == MANY
    assert "dedupe" not in of_many(MANY, [0, 1], [plain, plain])[0]
