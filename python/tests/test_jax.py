"""JAX's arrays: the golden set, transformations, several devices, derivatives, and what is refused."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import functools  # noqa: E402
import unittest  # noqa: E402

import cudrift  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from common import CASES, Case, Test, error, growth, in_threads, microseconds, samples  # noqa: E402
from cudrift.jax import _halves, _numbers, drift_loss  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402
from jax.test_util import check_grads  # noqa: E402


def on_jax(case):
    return [None if array is None else jnp.asarray(array) for array in case.arrays]


def with_gradient(call, gen):
    """Loss, info and the gradient of the losses' sum."""

    def total(gen):
        loss, info = call(gen)
        return loss.sum(), (loss, info)

    (_, (loss, info)), gradient = jax.value_and_grad(total, has_aux=True)(gen)
    return loss, info, gradient


def pure(gen, pos, temperatures):
    """The official call in plain JAX, without negatives and weights (spec 2.2)."""
    x, y = jax.lax.stop_gradient(gen), jax.lax.stop_gradient(jnp.concatenate([gen, pos], axis=1))
    g, d = x.shape[1:]
    distance = jnp.sqrt(jnp.maximum(((x[:, :, None] - y[:, None]) ** 2).sum(-1), 1e-8))
    scale = distance.mean()
    sigma = jnp.maximum(scale / d**0.5, 1e-3)
    normal = distance / jnp.maximum(scale, 1e-3) + 100 * jnp.eye(g, y.shape[1])
    force = 0
    for r in temperatures:
        logits = -normal / r
        product = jax.nn.softmax(logits, -1) * jax.nn.softmax(logits, -2)
        a = jnp.sqrt(jnp.maximum(product, 1e-6))
        minus, plus = a[..., :g].sum(-1, keepdims=True), a[..., g:].sum(-1, keepdims=True)
        c = jnp.concatenate([-a[..., :g] * plus, a[..., g:] * minus], axis=-1)
        f = (c @ y - c.sum(-1, keepdims=True) * x) / sigma
        force += f / jnp.sqrt(jnp.maximum((f**2).mean(), 1e-8))
    return ((gen / sigma - x / sigma - force) ** 2).mean((1, 2))


class Golden(Test):
    def judge(self, case, loss, info, gradient, bound):
        self.near(loss, case.want["loss"], bound, f"{case.name} loss")
        self.near(gradient, case.want["grad_gen"], bound, f"{case.name} gradient")
        self.near(info["scale"], case.want["scale"], bound, f"{case.name} scale")
        f2 = [info[f"loss_{r}"] for r in case.temperatures]
        self.near(f2, case.want["loss_R"], bound, f"{case.name} loss_R")
        self.assertEqual(len(info), 1 + len(case.temperatures))

    def test_the_golden_set_with_and_without_jit(self):
        for path in CASES:
            case = Case(path)
            gen, *others = on_jax(case)
            call = functools.partial(with_gradient, lambda x: drift_loss(x, *others, case.temperatures))
            self.judge(case, *call(gen), 2e-6)
            self.judge(case, *jax.jit(call)(gen), 2e-6)

    def test_the_golden_set_in_f64(self):
        with jax.enable_x64(True):
            for path in CASES:
                case = Case(path, np.float64)
                gen, *others = on_jax(case)
                call = functools.partial(with_gradient, lambda x: drift_loss(x, *others, case.temperatures))
                loss, info, gradient = jax.jit(call)(gen)
                self.assertEqual(gradient.dtype, jnp.float64)
                self.judge(case, loss, info, gradient, 1e-11)

    def test_the_golden_set_on_two_devices(self):
        for path in CASES:
            case = Case(path)
            if case.gen.shape[0] % 2 == 0:
                self.judge(case, *spread(2, on_jax(case), case.temperatures), 2e-6)


def spread(devices, arrays, temperatures):
    """A call whose groups are spread over devices."""
    mesh, split = Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data")
    there = [k for k, array in enumerate(arrays) if array is not None]

    def local(*some):
        full = [None] * len(arrays)
        for k, array in zip(there, some):
            full[k] = array
        return with_gradient(lambda gen: drift_loss(gen, *full[1:], temperatures, axis_name="data"), full[0])

    outs = (split, PartitionSpec(), split)
    call = jax.shard_map(local, mesh=mesh, in_specs=(split,) * len(there), out_specs=outs)
    return jax.jit(call)(*(arrays[k] for k in there))


class Transformations(Test):
    def test_two_to_four_devices_are_one(self):
        gen, pos, neg = map(jnp.asarray, samples(1, (3, 12, 10, 7)))
        weights = [jnp.asarray(np.abs(w)) for w in samples(2, (3, 12, 10))]
        arrays = [gen, pos, neg, *weights]
        loss, info, gradient = with_gradient(lambda x: drift_loss(x, *arrays[1:]), gen)
        for devices in (2, 3, 4):
            for x64 in (False, True):
                with jax.enable_x64(x64):
                    other_loss, other_info, other = spread(devices, arrays, (0.02, 0.05, 0.2))
                self.near(other, gradient, 1e-6, devices)
                self.near(other_loss, loss, 1e-6)
                for key, value in info.items():
                    self.near(other_info[key], value, 1e-6, key)

    def test_devices_that_share_nothing(self):
        gen, pos = map(jnp.asarray, samples(3, (2, 4, 8, 4)))
        mesh, split = Mesh(np.array(jax.devices()[:2]), ("data",)), PartitionSpec("data")

        def local(x, y):
            loss, info, gradient = with_gradient(lambda x: drift_loss(x, y), x)
            return loss, info["scale"][None], gradient

        call = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(split, split), out_specs=(split, split, split)))
        loss, scale, gradient = call(gen, pos)
        for k in range(2):
            own = slice(2 * k, 2 * k + 2)
            one, info, of = with_gradient(lambda x: drift_loss(x, pos[own]), gen[own])
            self.near(loss[own], one, 1e-6)
            self.near(scale[k], info["scale"], 1e-6)
            self.near(gradient[own], of, 1e-6)

    def test_vmap_is_a_loop(self):
        gen, pos = map(jnp.asarray, samples(3, (2, 3, 2, 8, 4)))
        loss, info = jax.vmap(drift_loss)(gen, pos)
        gradient = jax.vmap(jax.grad(lambda x, y: drift_loss(x, y)[0].sum()))(gen, pos)
        for k in range(3):
            one, own, of = with_gradient(lambda x: drift_loss(x, pos[k]), gen[k])
            np.testing.assert_array_equal(loss[k], one)
            np.testing.assert_array_equal(info["scale"][k], own["scale"])
            self.near(gradient[k], of, 1e-6)

    def test_it_is_what_plain_jax_computes(self):
        gen, pos = map(jnp.asarray, samples(4, (2, 4, 24, 16)))
        loss, _, gradient = with_gradient(lambda x: drift_loss(x, pos), gen)
        self.near(loss, pure(gen, pos, (0.02, 0.05, 0.2)), 1e-5)
        self.near(gradient, jax.grad(lambda x: pure(x, pos, (0.02, 0.05, 0.2)).sum())(gen), 2e-5)

    def test_half_precision(self):
        gen, pos = samples(5, (2, 2, 16, 8))
        for dtype in (jnp.float16, jnp.bfloat16):
            x, y = jnp.asarray(gen, dtype), jnp.asarray(pos, dtype)
            loss, _, gradient = with_gradient(lambda x: drift_loss(x, y), x)
            exact = cudrift.drift(np.asarray(x, np.float64), np.asarray(y, np.float64))
            self.assertEqual((loss.dtype, gradient.dtype), (jnp.float32, dtype))
            self.near(loss, exact.loss, 1e-5)
            self.near(gradient, exact.gradient, 1e-3 if dtype == jnp.float16 else 5e-3)
            # Types that differ are promoted.
            self.assertEqual(drift_loss(x, jnp.asarray(pos))[0].dtype, jnp.float32)

    def test_doubles_as_halves(self):
        numbers = np.array([0, -0.0, 1, -1.5, 1 / 3, 1e30, -1e-30, 1e300, -1e300, 1e-40, np.inf, -np.inf, np.nan])
        numbers = np.concatenate([numbers, np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-25, 25).repeat(20)])
        halves = jnp.asarray(numbers.view(np.uint32).reshape(-1, 2))
        with np.errstate(over="ignore"):
            want = numbers.astype(np.float32)
        want[np.abs(numbers) < np.finfo(np.float32).tiny] = 0
        got = np.asarray(jax.jit(_numbers)(halves))
        np.testing.assert_array_equal(got, want)
        back = np.asarray(jax.jit(_halves)(jnp.asarray(want)), np.uint32).reshape(-1).view(np.float64)
        np.testing.assert_array_equal(back, want.astype(np.float64))


class Derivatives(Test):
    def test_of_the_frozen_regression(self):
        """The closed form is the derivative of (x / sigma - goal)^2 with goal and sigma held, also the second one."""
        with jax.enable_x64(True):
            gen, pos = map(jnp.asarray, samples(6, (2, 2, 6, 3), np.float64))
            at = cudrift.drift(np.asarray(gen), np.asarray(pos))

            def frozen(x):
                return ((x / at.sigma - at.goal) ** 2).mean((1, 2))

            check_grads(frozen, (gen,), order=2)
            weights = jnp.asarray([0.7, -1.3])

            def dotted(loss):
                return lambda x: (loss(x) * weights).sum()

            ours = dotted(lambda x: drift_loss(x, pos)[0])
            self.near(jax.grad(ours)(gen), jax.grad(dotted(frozen))(gen), 1e-12)
            direction = jnp.asarray(samples(7, gen.shape, np.float64))

            def second(f):
                return jax.grad(lambda x: (jax.grad(f)(x) * direction).sum())(gen)

            self.near(second(ours), second(dotted(frozen)), 1e-12)
            squared = dotted(lambda x: drift_loss(x, pos)[0] ** 2)
            self.near(second(squared), second(dotted(lambda x: frozen(x) ** 2)), 1e-12)
            forward = jax.jvp(ours, (gen,), (direction,))
            self.near(forward[1], jax.jvp(dotted(frozen), (gen,), (direction,))[1], 1e-12)

    def test_nothing_else_has_a_gradient(self):
        gen, pos = map(jnp.asarray, samples(8, (2, 2, 6, 3)))
        ones = jnp.ones((2, 6))
        for k in range(1, 6):
            gradient = jax.grad(lambda *a: drift_loss(*a)[0].sum(), argnums=k)(gen, pos, pos + 1, ones, ones, ones)
            self.assertEqual(float(jnp.abs(gradient).max()), 0.0)


class Use(Test):
    def test_threads(self):
        inputs = [tuple(map(jnp.asarray, samples(seed, (2, 2, 20, 12)))) for seed in range(4)]
        call = jax.jit(lambda x, y: drift_loss(x, y)[0])
        want = [np.asarray(call(*pair)) for pair in inputs]
        got = in_threads(lambda k: [np.asarray(call(*inputs[k])) for _ in range(20)], 4)
        for results, expected in zip(got, want):
            for result in results:
                np.testing.assert_array_equal(result, expected)

    def test_twenty_thousand_calls_leave_nothing(self):
        gen, pos = map(jnp.asarray, samples(9, (2, 1, 4, 2)))
        call, nothing = jax.jit(lambda x, y: drift_loss(x, y)[0]), jax.jit(lambda x, y: x.sum((1, 2)) + y.sum((1, 2)))
        self.assertLess(growth(lambda: call(gen, pos).block_until_ready()), 20)
        ours, theirs = (microseconds(lambda: f(gen, pos).block_until_ready()) for f in (call, nothing))
        print(f"a jitted call of 4 x 8 pairs by JAX: {ours:.1f} microseconds, a sum {theirs:.1f}")

    def test_what_cannot_be(self):
        gen, pos = map(jnp.asarray, samples(10, (2, 2, 6, 4)))
        self.refused("fixed_pos has shape [2, 6, 3]", drift_loss, gen, pos[..., :3])
        self.refused("gen has shape [6, 4]", drift_loss, gen[0], pos[0])
        self.refused("samples are int32", drift_loss, gen.astype(int), pos.astype(int))
        self.refused("weight_pos has shape [2, 5]", drift_loss, gen, pos, weight_pos=jnp.ones((2, 5)))
        self.refused("weight_pos has shape [2, 0]", drift_loss, gen, pos, weight_pos=jnp.ones((2, 0)))
        for call in (drift_loss, jax.jit(drift_loss, static_argnames="R_list")):
            self.refused(
                "emperature", lambda: jax.block_until_ready(call(gen, pos, R_list=(-1.0,))), kind=jax.errors.JaxRuntimeError
            )
            bad = jnp.full((2, 6), jnp.nan)
            self.refused(
                "weight_positives",
                lambda: jax.block_until_ready(call(gen, pos, weight_pos=bad)),
                kind=jax.errors.JaxRuntimeError,
            )
        none = drift_loss(gen[:0], pos[:0])
        self.assertEqual(none[0].shape, (0,))
        self.assertLess(error(drift_loss(gen, pos[:, :0])[0], [0, 0]), 1e-30)


if __name__ == "__main__":
    unittest.main()
