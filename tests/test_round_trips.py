"""What is written is what is read: options, parameters and checkpoints, for all that they hold."""

import tempfile
from pathlib import Path
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from analyses.configuration import parse_run
from generative import InvalidInput, ParameterSpace
from inference.backends.registry import BACKENDS
from inference.running.checkpoint import Section

NAMES_OF = {name.replace("-", "_"): name for name in BACKENDS}
SECTIONS = {section: BACKENDS[name] for section, name in NAMES_OF.items()}
# Numbers that each kind of option refuses, whatever its range.
NO_NUMBERS = ["x", "7", "", b"7", 1j, True, float("nan"), float("inf"), -1, 7.5, [], {}, (3,)]
NO_CHOICES = ["", "x", 0, True, None, [], object()]


def few(number):
    return settings(max_examples=number, deadline=None, derandomize=True)


def fields_of(section):
    return SECTIONS[section].model_fields


def values_of(field):
    """Values that a field takes, and its limits among them."""
    kind, optional = field.annotation, st.nothing()
    if type(None) in get_args(kind):
        (kind,), optional = (k for k in get_args(kind) if k is not type(None)), st.none()
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind)) | optional
    if kind is bool:
        return st.booleans() | optional
    limits = {
        name: getattr(x, name)
        for x in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(x, name)
    }
    low, high = (limits.get(n, limits.get(m)) for n, m in (("ge", "gt"), ("le", "lt")))
    if kind is int:
        return st.integers(low, high if high is not None else 2**40) | optional
    if kind is float:
        return (
            st.floats(
                low,
                high,
                exclude_min="gt" in limits,
                exclude_max="lt" in limits,
                allow_infinity=False,
                allow_nan=False,
            )
            | optional
        )
    return st.nothing() | optional


@st.composite
def options(draw):
    """A backend's section and some of its options, each with a value that it takes."""
    section = draw(st.sampled_from(sorted(SECTIONS)))
    fields = {n: f for n, f in fields_of(section).items() if not values_of(f).is_empty}
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=6))
    return section, {name: draw(values_of(fields[name])) for name in names}


def flags(section, values):
    prefix = section.replace("_", "-")
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{prefix}.{'' if value else 'no-'}{flag}"
        else:
            yield f"--{prefix}.{flag}={value}"


def toml(section, values):
    words = {
        name: repr(x).lower() if isinstance(x, bool) else repr(x) for name, x in values.items()
    }
    chosen = f'backend = "{NAMES_OF[section]}"\n[{section}]\n'
    return chosen + "".join(f"{name} = {word}\n" for name, word in words.items())


@few(25)
@given(options())
def test_options_come_back_from_flags_and_files(chosen):
    section, values = chosen
    backend = SECTIONS[section](**values)
    chosen_flag = f"--backend={NAMES_OF[section]}"
    parsed = parse_run("double_well", [chosen_flag, *flags(section, values)])
    assert getattr(parsed, section) == backend
    # TOML has no word for None, which is every optional field's default.
    written = {name: value for name, value in values.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.toml"
        file.write_text(toml(section, written))
        parsed = parse_run("double_well", ["--config", str(file)])
    assert getattr(parsed, section) == backend
    assert type(backend)(**backend.model_dump()) == backend


@pytest.mark.parametrize(
    ("section", "name"), [(s, name) for s in SECTIONS for name in fields_of(s)]
)
def test_options_that_are_none(section, name):
    backend, field = SECTIONS[section], fields_of(section)[name]
    kinds = set(get_args(field.annotation)) | {field.annotation}
    wrong = NO_NUMBERS if kinds & {int, float} else NO_CHOICES if str not in kinds else [3, b"x"]
    wrong = [x for x in wrong if not (x == 7.5 and float in kinds)]
    if bool in kinds:
        wrong = [x for x in wrong if x is not True]
    for value in [*wrong, object(), 1e400, lambda: 3]:
        with pytest.raises(InvalidInput) as caught:
            backend(**{name: value})
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{backend.__name__}.{name}")


FLOATS = st.sampled_from([np.float32, np.float64])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
NAMES = st.text("abc_", min_size=1, max_size=3)


def finite(dtype):
    width = 8 * np.dtype(dtype).itemsize
    return st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=width)


PARAMETERS = FLOATS.flatmap(lambda d: arrays.arrays(d, SHAPES, elements=finite(d)))
THETAS = st.recursive(
    PARAMETERS,
    lambda x: st.dictionaries(NAMES, x, max_size=3) | st.lists(x, max_size=3) | st.tuples(x, x),
    max_leaves=5,
).filter(lambda theta: sum(x.size for x in jax.tree.leaves(theta)) > 0)


def assert_same_trees(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@few(80)
@given(THETAS)
def test_parameters_come_back_from_vectors(theta):
    space = ParameterSpace(theta)
    flat = np.asarray(space.origin)
    assert space.dimension == len(flat) == len(space.names) == len(set(space.names))
    assert flat.dtype == jnp.result_type(*jax.tree.leaves(theta))
    assert_same_trees(space.unravel(flat), theta)
    leaves = [x.ravel() for x in jax.tree.leaves(theta)]
    np.testing.assert_array_equal(flat, np.concatenate(leaves, dtype=flat.dtype))
    slices = space.blocks.values()
    np.testing.assert_array_equal(np.concatenate([flat[s] for s in slices]), flat)


@few(8)  # each of which compiles
@given(THETAS)
def test_batches_of_parameters_are_batches_of_vectors(theta):
    space = ParameterSpace(theta)
    flat = np.asarray(space.origin)
    # Of another length in each axis than any leaf's.
    batch = jax.tree.map(lambda x: np.broadcast_to(x, (5, 4, *x.shape)), theta)
    np.testing.assert_array_equal(space.vector(batch), np.broadcast_to(flat, (5, 4, len(flat))))


SAVED = (
    arrays.arrays(st.sampled_from(["f4", "f8", "i4", "i8", "u1", "u4", "?", "c8"]), SHAPES)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
)
KEYS = st.integers(0, 2**32 - 1).map(jax.random.key)
STATES = st.recursive(
    SAVED | KEYS | SAVED.filter(lambda x: isinstance(x, np.ndarray)).map(jnp.asarray),
    lambda x: st.dictionaries(NAMES, x, max_size=3) | st.lists(x, max_size=3) | st.tuples(x, x),
    max_leaves=6,
)


def is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def emptied(leaf):
    """A leaf of the same kind that knows nothing of the saved value."""
    if isinstance(leaf, np.ndarray):
        return np.zeros(0)
    if isinstance(leaf, jax.Array):
        return jax.random.key(0) if is_key(leaf) else jnp.zeros(0)
    return type(leaf)(0)


@few(60)
@given(STATES, st.integers(1, 5))
def test_states_come_back_from_checkpoints(state, count):
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "0001"
        Section(stem, "draws").save(state, count)
        section = Section(stem, "draws")
        assert section.count == count
        found = section.restore(jax.tree.map(emptied, state))
        with pytest.raises(InvalidInput, match="checkpoint"):
            section.restore((state, 0.0))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert type(one) is type(other)
        if is_key(other):
            assert jax.random.key_impl(one) == jax.random.key_impl(other)
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
