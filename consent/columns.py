"""Arrays of a query's answer as numpy columns: 0.1 µs a value, where a Python object takes one."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

POSTGRES_EPOCH = np.datetime64("2000-01-01", "us")
HEADER = struct.Struct(">iiiii")  # dimensions, has nulls, element type, length, lower bound
LENGTH = struct.Struct(">i")

# PostgreSQL's array types, by the format of an element on the wire (pg_type.dat).
BOOL, XID, INT2, INT4, INT8 = 1000, 1011, 1005, 1007, 1016
FLOAT8, TIMESTAMPTZ, TEXT = 1022, 1185, 1009
WIRE = {
    BOOL: "?",
    XID: ">u4",
    INT2: ">i2",
    INT4: ">i4",
    INT8: ">i8",
    FLOAT8: ">f8",
    TIMESTAMPTZ: ">i8",
}


def column_of(array_type: int, value: bytes | None) -> Column:
    """A one-dimensional array in binary format; None, what array_agg makes of no rows, is empty.

    Texts are UTF-8 bytes. ValueError for another type and for a NULL: coalesce it in the query.
    """
    if array_type != TEXT and array_type not in WIRE:
        raise ValueError(f"type {array_type} makes no column")
    length = 0
    if value is not None and len(value) >= HEADER.size:
        dimensions, has_nulls, _, length, _ = HEADER.unpack_from(value)
        if dimensions != 1 or has_nulls:
            raise ValueError("a column has one dimension and no NULL")
    body = value[HEADER.size :] if length and value else b""
    if array_type == TEXT:
        return _texts(body, length)
    wire = np.dtype(WIRE[array_type])
    element = np.dtype([("bytes", ">i4"), ("value", wire)])
    values: Column = np.frombuffer(body, element)["value"].astype(wire.newbyteorder("="))
    return POSTGRES_EPOCH + values.view("m8[us]") if array_type == TIMESTAMPTZ else values


def _texts(body: bytes, length: int) -> Column:
    values = np.empty(length, object)
    at = 0
    for index in range(length):
        begin = at + LENGTH.size
        at = begin + LENGTH.unpack_from(body, at)[0]
        values[index] = body[begin:at]
    return values
