"""The data of commands in the inbox is read as strictly as events are."""

import json

import pytest

from turnfold._decide.command_data import (
    EnqueueData,
    PieceData,
    ReceiptData,
    read,
    written,
)
from turnfold.enums import BlindPolicy, Kind, PartAct
from turnfold.errors import InvalidInputError
from turnfold.messages import Route

ENQUEUE = EnqueueData(
    route=Route(channel="t", conversation="42"),
    kind=Kind.NOTICE,
    key="k",
    policy=BlindPolicy.HOLD,
    not_before=None,
    ttl_ms=1_000,
    payloads=(PieceData(kind="text", head={"text": "hi"}, contents=(0,)),),
)
RECEIPT = ReceiptData(part=0, attempt=1, act=PartAct.EDIT, ids=("m1",), thread=None)


@pytest.mark.parametrize("data", [ENQUEUE, RECEIPT])
def test_data_comes_back_as_it_was_written(data):
    assert read(json.loads(written(data)), type(data)) == data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl_ms", "1000"),
        ("ttl_ms", True),
        ("kind", "gossip"),
        ("route", None),
        ("route", {"channel": "", "conversation": "42"}),
        ("payloads", [{"kind": "text"}]),
        ("colour", "red"),
    ],
)
def test_data_of_another_shape_is_one_typed_error(field: str, value: object):
    shape = json.loads(written(ENQUEUE)) | {field: value}
    with pytest.raises(InvalidInputError):
        read(shape, EnqueueData)


def test_a_missing_field_is_the_same_error():
    shape = json.loads(written(RECEIPT))
    del shape["attempt"]
    with pytest.raises(InvalidInputError, match="attempt"):
        read(shape, ReceiptData)
