"""The wire in Python: messages.def and limits.h read as they are, for the Transformers worker and for tests.

    frame = encode(Step(step=1, row_slots=[0]), session, seq)     one msgpack array: [kind, session, seq, field, …]
    message, session, seq = decode(frame)                         FrameError names the message and the field

Every ENUM becomes constants (ROLE_ROUTER), every RECORD and MESSAGE a class of the same name in CamelCase (StepDone)
whose fields start as zero or empty. u32s and f32s are array.array("I") and ("f"): numpy and torch read them in place.
The rules are those of msg.h: missing fields are zero, unknown ones skipped, sizes checked.
"""

import re
import struct
from array import array
from pathlib import Path

import msgpack

_HERE = Path(__file__).parent
WIRE_VERSION = 1
LIMITS = {
    name: eval(value, {"__builtins__": {}})  # 96 * 1024 * 1024: digits and operators of our own header only
    for name, value in re.findall(r"^\s*(LIMIT_\w+) = ([\d *]+),", (_HERE / "limits.h").read_text(), re.M)
}


class FrameError(ValueError):
    """A frame that no Banyan process would send."""


class _Field:
    __slots__ = ("name", "kind", "of", "is_list")

    def __init__(self, name, kind, of=None, is_list=False):
        self.name, self.kind, self.of, self.is_list = name, kind, of, is_list


class Message:
    """Base of all records and messages: fields by name, equality, a readable repr."""

    __slots__ = ()
    FIELDS: tuple = ()
    KIND = 0  # of a message; 0 for records
    NAME = ""

    def __init__(self, **values):
        for field in self.FIELDS:
            value = values.pop(field.name, None)
            setattr(self, field.name, _zero(field) if value is None else _to_field(field, value))
        if values:
            raise TypeError(f"{self.NAME} has no field {', '.join(values)}")

    def __eq__(self, other):
        return type(self) is type(other) and all(getattr(self, f.name) == getattr(other, f.name) for f in self.FIELDS)

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in self.FIELDS)})"


_INTS = {"u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}
_ZERO = {**dict.fromkeys(_INTS, 0), "bool": False, "f32": 0.0, "f64": 0.0, "str": "", "bin": b""}
_ARRAYS = {"u32s": "I", "f32s": "f"}


def _zero(field):
    if field.is_list or field.kind == "strs":
        return []
    if field.kind in _ARRAYS:
        return array(_ARRAYS[field.kind])
    return field.of() if field.of else _ZERO[field.kind]


def _to_field(field, value):
    if field.kind in _ARRAYS and not isinstance(value, array):
        return array(_ARRAYS[field.kind], value)
    if field.kind == "f32":
        return _as_f32(value)
    return value


def _as_f32(value):
    """The double nearest to what a C float can hold: what goes out comes back equal."""
    return struct.unpack("f", struct.pack("f", value))[0]


def _camel(name):
    return "".join(part.capitalize() for part in name.split("_"))


def _read_table():
    """The rows of messages.def, in order, as classes by name."""
    row = re.compile(r'^\s*(ENUM|VALUE|RECORD|MESSAGE|FIELD|LIST|END|END_ENUM)\(([^")]*)', re.M)
    text = re.sub(r"/\*.*?\*/", "", (_HERE / "messages.def").read_text(), flags=re.S)
    classes, names, current = {}, {}, None
    for verb, inside in row.findall(text):
        args = [a.strip() for a in inside.split(",") if a.strip()]
        if verb == "VALUE":
            names[args[0]] = int(args[1])
        elif verb in ("RECORD", "MESSAGE"):
            current = (args[0], int(args[1]) if verb == "MESSAGE" else 0, [])
        elif verb == "FIELD":
            current[2].append(_Field(args[1], args[0], classes.get(args[0])))
        elif verb == "LIST":
            current[2].append(_Field(args[1], args[0], classes[args[0]], is_list=True))
        elif verb == "END":
            name, kind, fields = current
            body = {"__slots__": tuple(f.name for f in fields), "FIELDS": tuple(fields), "KIND": kind, "NAME": name}
            classes[name] = type(_camel(name), (Message,), body)
    return classes, names


CLASSES, _ENUMS = _read_table()
BY_KIND = {c.KIND: c for c in CLASSES.values() if c.KIND}
globals().update(_ENUMS)
globals().update({c.__name__: c for c in CLASSES.values()})


def is_data(kind):
    """Does a frame of this kind cost credit?"""
    return 16 <= kind < 32


# ---- writing ----


def _pack_field(field, value):
    if field.is_list:
        return [_pack(v) for v in value]
    if field.of:
        return _pack(value)
    if field.kind in _ARRAYS:
        return value.tobytes()
    if field.kind == "f32":
        return _as_f32(value)
    return value


def _pack(record):
    return [_pack_field(f, getattr(record, f.name)) for f in record.FIELDS]


def encode(message, session=0, seq=0):
    """The frame of a message."""
    return msgpack.packb([message.KIND, session, seq, *_pack(message)], use_bin_type=True)


# ---- reading ----


def _check(is_good, field, what):
    if not is_good:
        raise FrameError(f"field {field.name}: {what}")


def _unpack_scalar(field, value):
    kind = field.kind
    if kind in _INTS:
        low, high = _INTS[kind]
        _check(type(value) is int, field, "a whole number was expected")
        _check(low <= value <= high, field, "a number out of range")
    elif kind == "bool":
        _check(value in (0, 1), field, "true or false was expected")
        return bool(value)
    elif kind in ("f32", "f64"):
        _check(type(value) in (int, float), field, "a number was expected")
        return float(value)
    else:
        want = str if kind == "str" else bytes
        _check(type(value) is want, field, "a string was expected" if want is str else "bytes were expected")
    return value


def _unpack_field(field, value):
    if value is None:
        return _zero(field)
    if field.is_list or field.kind == "strs":
        _check(type(value) is list, field, "a list was expected")
        _check(len(value) <= LIMITS["LIMIT_LIST"], field, "a list over the limit")
        if field.is_list:
            return [_unpack(field.of, v) for v in value]
        _check(all(type(v) is str for v in value), field, "a list of strings was expected")
        return value
    if field.of:
        return _unpack(field.of, value)
    if field.kind in _ARRAYS:
        _check(type(value) is bytes, field, "bytes were expected")
        _check(len(value) % 4 == 0, field, "an array of 4-byte numbers has a broken last one")
        _check(len(value) // 4 <= LIMITS["LIMIT_TOKENS"], field, "an array over the limit")
        numbers = array(_ARRAYS[field.kind])
        numbers.frombytes(value)
        return numbers
    return _unpack_scalar(field, value)


def _unpack(cls, values):
    if values is None:
        return cls()
    if type(values) is not list:
        raise FrameError(f"{cls.NAME}: a record was expected")
    record = cls.__new__(cls)
    n = len(values)
    for i, field in enumerate(cls.FIELDS):
        setattr(record, field.name, _unpack_field(field, values[i]) if i < n else _zero(field))
    return record


def decode(frame):
    """(message, session, seq) of a frame; FrameError when it is broken or of an unknown kind."""
    if len(frame) > LIMITS["LIMIT_FRAME_BYTES"]:
        raise FrameError(f"a frame of {len(frame)} bytes is over the limit")
    try:
        values = msgpack.unpackb(
            frame, raw=False, strict_map_key=True, max_str_len=LIMITS["LIMIT_STR_BYTES"],
            max_bin_len=LIMITS["LIMIT_STR_BYTES"], max_map_len=0, max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as broken:
        raise FrameError(f"not a msgpack frame: {broken}") from None
    if type(values) is not list or len(values) < 3 or any(type(v) is not int or v < 0 for v in values[:3]):
        raise FrameError("a frame is an array of kind, session, seq and fields")
    cls = BY_KIND.get(values[0])
    if cls is None:
        raise FrameError(f"a frame of the unknown kind {values[0]}")
    try:
        return _unpack(cls, values[3:]), values[1], values[2]
    except FrameError as broken:
        raise FrameError(f"frame {cls.NAME}, {broken}") from None
