"""What a model was given, taken apart: arrays are data, everything else is structure.

A program is compiled once for a structure and takes the data as arguments. The arrays inside a
function count as data where JAX can see them: in an `equinox.Module` with a `__call__`, or in a
`jax.tree_util.Partial`. What a closure holds is a constant of the function, and part of structure.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool

# What the nodes of these hold are keys, which JAX itself compares.
_CONTAINERS = (dict, list, tuple, OrderedDict, defaultdict, deque, type(None))
# Whose objects that are no arrays, such as compiled functions, do not change.
_LIBRARIES = ("jax", "jaxlib", "equinox", "numpyro")


class Data(eqx.Module):
    """Abstract: a pytree that is hashed and compared by identity, as what holds arrays must be.

    So its methods can be compiled by themselves, `jax.jit(model.log_likelihood)`, with its arrays
    as constants.
    """

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class _Opaque:
    """What has no hash of its own: equal to itself alone."""

    def __init__(self, value: Any):
        self.value = value


class Parts(eqx.Module):
    """Any pytree or callable, with its arrays as leaves.

    Two of them have one structure if what is no array is equal and cannot change: plain functions,
    classes, strings, numbers of one type, frozen dataclasses of these. Anything else, such as
    an object with a state, is equal to nothing, so that its programs are compiled anew.

    Parameters
    ----------
    whole : pytree
    """

    arrays: tuple[Array, ...]
    _structure: Any = eqx.field(static=True)
    _others: tuple = eqx.field(static=True)
    _keys: tuple = eqx.field(static=True)

    def __init__(self, whole: Any):
        try:
            leaves, structure = jax.tree.flatten(whole)
            keys = _structure_key(structure)
        except (TypeError, ValueError):  # such as mapping keys that cannot be sorted
            leaves, structure = jax.tree.flatten(_Opaque(whole))
            keys = ()
        self.arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
        self._structure = structure
        self._others = tuple(None if _is_array(leaf) else _constant(leaf) for leaf in leaves)
        self._keys = (keys, tuple(_key(other) for other in self._others))

    @property
    def whole(self) -> Any:
        """The pytree or callable itself."""
        arrays = iter(self.arrays)
        leaves = [next(arrays) if other is None else other for other in self._others]
        leaves = [leaf.value if isinstance(leaf, _Opaque) else leaf for leaf in leaves]
        whole = jax.tree.unflatten(self._structure, leaves)
        return whole.value if isinstance(whole, _Opaque) else whole


class Mask(eqx.Module):
    """A mask that programs may branch on: a part of their structure.

    Parameters
    ----------
    values : bool array
    """

    _packed: bytes = eqx.field(static=True)
    _length: int = eqx.field(static=True)

    def __init__(self, values: Bool[np.ndarray, " d"]):
        self._packed, self._length = np.packbits(values).tobytes(), len(values)

    @property
    def values(self) -> Bool[np.ndarray, " d"]:
        """The mask itself, shape (d,)."""
        packed = np.frombuffer(self._packed, np.uint8)
        return np.unpackbits(packed, count=self._length).astype(bool)


class Column(eqx.Module):
    """Values of each question of a set, numbers or strings, as data.

    Parameters
    ----------
    values : array, shape (n,)
    """

    codes: Array | np.ndarray
    _width: int | None = eqx.field(static=True)

    def __init__(self, values: Any):
        values = np.asarray(values)
        if values.dtype == np.longdouble and values.dtype != np.float64:
            values = values.astype(np.float64)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)  # files may swap bytes
        is_text = values.dtype.kind == "U" and values.ndim == 1 and values.dtype.itemsize > 0
        self._width = values.dtype.itemsize // 4 if is_text else None
        shape = values.shape if self._width is None else (len(values), self._width)
        # Strings by the codes of their characters, since no program takes strings.
        codes = np.ascontiguousarray(values).view(np.uint32 if is_text else values.dtype)
        self.codes = codes.reshape(shape)

    @property
    def values(self) -> np.ndarray:
        """The values themselves, shape (n,)."""
        codes = np.asarray(self.codes)
        if self._width is None:
            return codes
        return np.ascontiguousarray(codes).view(f"U{self._width}").reshape(len(codes))


class Named(eqx.Module):
    """What has names, in the order in which it was given: a mapping would be sorted.

    Parameters
    ----------
    given : mapping from name
    kind : callable
        Makes each value a pytree of arrays.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    values: tuple[Any, ...]

    def __init__(self, given: Mapping[str, Any], kind: Callable[[Any], Any]):
        self.names, self.values = tuple(given), tuple(map(kind, given.values()))

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names with values."""
        return zip(self.names, self.values, strict=True)


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind not in "USOMm"
    return isinstance(leaf, jax.Array)


def _constant(leaf: Any) -> Any:
    """Return a leaf that cannot change, or else one that is equal to nothing."""
    try:
        _key(leaf)
    except TypeError:
        return _Opaque(leaf)
    return leaf


def _key(value: Any) -> Any:
    """Return what tells a constant from others: equality alone would take True for 1.

    Raises
    ------
    TypeError
        If the value has a state that might change.
    """
    if value is None or isinstance(value, str | bytes | type | FunctionType | np.dtype | _Opaque):
        return value
    if isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType):
        return value
    if isinstance(value, bool | int | float | complex):
        return type(value), repr(value)
    if isinstance(value, tuple):
        return type(value), tuple(map(_key, value))
    if type(value).__module__.partition(".")[0] in _LIBRARIES and not _is_array(value):
        hash(value)
        return value
    return type(value), tuple(_key(getattr(value, name)) for name in _fields(value))


def _fields(value: Any) -> list[str]:
    """Names of the fields of a frozen dataclass, or of a frozen pydantic model."""
    options = getattr(value, "__dataclass_params__", None)
    if is_dataclass(value) and options is not None and options.frozen:
        found = fields(value)
        if options.eq and all(field.compare for field in found):
            return [field.name for field in found]
    if getattr(type(value), "model_config", {}).get("frozen"):
        return list(type(value).model_fields)
    raise TypeError(f"{type(value).__name__} may change")


def _structure_key(structure: Any) -> tuple:
    """Key of what the nodes of a pytree hold beside their children."""
    node = structure.node_data()
    if node is None:
        return ()
    kind, held = node
    key = () if kind in _CONTAINERS else _key(held)
    return kind, key, tuple(map(_structure_key, structure.children()))
