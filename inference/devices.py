"""Laying independent chains or runs out over devices."""

import jax
from jaxtyping import PyTree

from generative import InvalidInput


def shard(tree: PyTree, count: int, name: str) -> PyTree:
    """Spread the leading axis of all leaves over all devices.

    Parameters
    ----------
    tree : pytree
    count : int
        Length of the leading axis.
    name : str
        Of the option that sets it, for the error.

    Raises
    ------
    InvalidInput
        If the axis does not divide over the devices.
    """
    num_devices = jax.device_count()
    if count % num_devices:
        raise InvalidInput(name, count, f"a multiple of {num_devices} devices")
    mesh = jax.make_mesh((num_devices,), (name,), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(name))
    return jax.device_put(tree, sharding)
