"""Laying chains, runs, negative samples or data out over devices."""

import jax
from jaxtyping import PyTree

from generative import InvalidInput


def along(axis: int) -> jax.sharding.NamedSharding:
    """Sharding of one axis over all devices."""
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=kinds)
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*[None] * axis, "device"))


def shard(tree: PyTree, count: int, name: str, axis: int = 0) -> PyTree:
    """Spread one axis of all leaves over all devices.

    Parameters
    ----------
    tree : pytree
    count : int
        Length of the axis.
    name : str
        Of the option that sets it, for the error.
    axis : int

    Raises
    ------
    InvalidInput
        If the axis does not divide over the devices.
    """
    check_divides(count, name)
    return jax.device_put(tree, along(axis))


def check_divides(count: int, name: str) -> None:
    """Refuse a number that does not divide over the devices.

    Raises
    ------
    InvalidInput
    """
    num_devices = jax.device_count()
    if count % num_devices:
        raise InvalidInput(name, count, f"a multiple of {num_devices} devices")


def replicate(tree: PyTree) -> PyTree:
    """Give every device a copy of all leaves."""
    everywhere = jax.sharding.NamedSharding(along(0).mesh, jax.sharding.PartitionSpec())
    return jax.device_put(tree, everywhere)
