#!/usr/bin/env python3
"""Trains a generator of the ring on several devices, each with a part of the groups, and shows that they are one.

    python examples/data_parallel_jax.py --devices 4

Needs JAX and the wheel of cudrift. The devices here are shares of the host; GPUs take the same program.
"""

import argparse
import os

GROUPS, SAMPLES, STEPS = 12, 64, 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    count = parser.parse_args().devices
    # Before JAX is imported.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    import jax
    import jax.numpy as jnp
    import numpy as np
    from cudrift.jax import drift_loss
    from jax.sharding import Mesh, PartitionSpec

    def ring(key):
        angle = jax.random.uniform(key, (GROUPS, SAMPLES), maxval=2 * jnp.pi)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def generate(net, noise):
        return jax.nn.silu(noise @ net["in"] + net["bias"]) @ net["out"]

    def local(net, noise, data, axis):
        """The gradient of all devices' mean loss, on each of them, by its own groups."""

        def mean(net):
            loss, info = drift_loss(generate(net, noise), data, axis_name=axis)
            return loss.sum() / GROUPS, info

        gradient, info = jax.grad(mean, has_aux=True)(net)
        return gradient, info

    def train(devices):
        mesh, split, whole = Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data"), PartitionSpec()
        # Parameters are the same on all devices: shard_map adds their gradients up by itself.
        gradient_of = jax.shard_map(
            lambda net, noise, data: local(net, noise, data, "data"),
            mesh=mesh,
            in_specs=(whole, split, split),
            out_specs=(whole, whole),
        )

        @jax.jit
        def step(net, key):
            noise = jax.random.normal(jax.random.fold_in(key, 0), (GROUPS, SAMPLES, 2))
            gradient, info = gradient_of(net, noise, ring(jax.random.fold_in(key, 1)))
            return jax.tree.map(lambda p, g: p - 0.05 * g, net, gradient), info

        keys = jax.random.split(jax.random.key(0), STEPS + 2)
        net = {
            "in": 0.5 * jax.random.normal(keys[-1], (2, 64)),
            "bias": jnp.zeros(64),
            "out": 0.1 * jax.random.normal(keys[-2], (64, 2)),
        }
        for at in range(STEPS):
            net, info = step(net, keys[at])
            if at % 5 == 4:
                print(f"step {at + 1}: scale {info['scale']:.4f}, f2 {info['loss_0.05']:.3e}", flush=True)
        return net

    print(f"{count} devices")
    many = train(count)
    print("1 device")
    one = train(1)
    apart = max(float(np.abs(np.asarray(many[name]) - np.asarray(one[name])).max()) for name in one)
    print(f"parameters are {apart:.1e} apart")


if __name__ == "__main__":
    main()
