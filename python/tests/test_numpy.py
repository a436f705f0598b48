"""NumPy's arrays: the golden set, memory that is not copied, workers, and what is refused."""

import dataclasses
import multiprocessing
import os
import unittest

import cudrift
import numpy as np
from common import CASES, Case, Test, growth, in_threads, microseconds, samples


def drift(case, **named):
    weights = {name: getattr(case, name) for name in ("weight_gen", "weight_pos", "weight_neg")}
    return cudrift.drift(case.gen, case.pos, case.neg, **weights, temperatures=case.temperatures, **named)


def child(seed, queue):
    gen, pos = samples(seed, (2, 4, 96, 48))
    queue.put(cudrift.drift(gen, pos).gradient)


class Golden(Test):
    def judge(self, case, bound):
        result = drift(case)
        for got, want in (
            (result.loss, "loss"),
            (result.gradient, "grad_gen"),
            (result.goal, "goal_scaled"),
            (result.scale, "scale"),
            (result.sigma, "scale_inputs"),
            (result.loss_r, "loss_R"),
        ):
            self.near(got, case.want[want], bound, f"{case.name} {want}")
        self.assertEqual(result.nonfinite, 0)

    def test_the_golden_set(self):
        for path in CASES:
            self.judge(Case(path), 2e-6)

    def test_the_golden_set_in_f64(self):
        for path in CASES:
            self.judge(Case(path, np.float64), 1e-11)

    def test_half_precision(self):
        import ml_dtypes

        gen, pos = samples(1, (2, 2, 32, 16))
        for dtype in (np.float16, ml_dtypes.bfloat16):
            x, y = gen.astype(dtype), pos.astype(dtype)
            exact = cudrift.drift(x.astype(np.float64), y.astype(np.float64))
            result = cudrift.drift(x, y)
            self.assertEqual(result.gradient.dtype, np.float32)
            self.near(result.gradient, exact.gradient, 5e-6, str(dtype))


class Memory(Test):
    def test_strides_change_nothing(self):
        gen, pos = samples(2, (2, 3, 20, 8))
        want = cudrift.drift(gen, pos)
        gaps = np.zeros((3, 20, 8, 2), np.float32)
        gaps[..., 1] = gen
        backward = np.ascontiguousarray(pos[:, ::-1, ::-1])[:, ::-1, ::-1]
        got = cudrift.drift(gaps[..., 1], backward)
        np.testing.assert_array_equal(got.goal, want.goal)
        # The same positives for every group, by a stride of 0.
        odd = np.zeros(gen.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(gen.shape)
        odd[...] = gen
        np.testing.assert_array_equal(cudrift.drift(odd, pos).goal, want.goal)
        shared = np.broadcast_to(pos[:1], pos.shape)
        np.testing.assert_array_equal(cudrift.drift(gen, shared).goal, cudrift.drift(gen, shared.copy()).goal)

    def test_out_is_written_in_place(self):
        gen, pos = samples(3, (2, 3, 20, 8))
        gradient, loss = np.empty_like(gen), np.empty(3, np.float32)
        result = cudrift.drift(gen, pos, out={"gradient": gradient, "loss": loss})
        self.assertIs(result.gradient, gradient)
        self.assertIsNone(result.force)
        self.near(gradient, cudrift.drift(gen, pos).gradient, 1e-6)

    def test_twenty_thousand_calls_leave_nothing(self):
        gen, pos = samples(4, (2, 1, 4, 2))
        strided = np.repeat(gen, 2, axis=-1)[..., ::2]
        self.assertLess(growth(lambda: cudrift.drift(strided, pos)), 20)
        self.assertLess(growth(lambda: self.refused("shape", cudrift.drift, gen, pos[..., :1])), 20)
        print(f"a call of 4 x 8 pairs by NumPy: {microseconds(lambda: cudrift.drift(gen, pos)):.1f} microseconds")


class Workers(Test):
    def test_threads(self):
        inputs = [samples(seed, (2, 2, 40, 12)) for seed in range(4)]
        want = [cudrift.drift(*pair).gradient for pair in inputs]
        got = in_threads(lambda k: [cudrift.drift(*inputs[k]).gradient for _ in range(20)], len(inputs))
        for results, expected in zip(got, want):
            for result in results:
                np.testing.assert_array_equal(result, expected)

    def test_children_by_fork_and_spawn(self):
        want = cudrift.drift(*samples(7, (2, 4, 96, 48))).gradient  # the parent has threads from here on
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(7, queue))
            process.start()
            self.near(queue.get(), want, 1e-6, method)
            process.join(60)
            self.assertEqual(process.exitcode, 0)


class Choices(Test):
    def test_every_choice_has_its_effect(self):
        gen, pos, neg = samples(8, (3, 2, 12, 6))
        weights = {"weight_pos": np.linspace(0.5, 2, 24, dtype=np.float32).reshape(2, 12)}
        plain = cudrift.drift(gen, pos, neg, **weights)
        official = cudrift.Spec.official()
        for change in (
            {"kernel": "gaussian"},
            {"kernel": "matern52"},
            {"feature_scale": "paper"},
            {"self_mask": "remove"},
            {"min_squared_distance": 4.0},
            {"weights": "logit"},
            {"force_norm": "none"},
            {"affinity_floor": "none"},
            {"temperatures": (0.3,)},
        ):
            other = cudrift.drift(gen, pos, neg, **weights, spec=official.replace(**change))
            self.assertFalse(np.allclose(other.force, plain.force, rtol=1e-4), change)
        sinkhorn = official.coupled("sinkhorn", "split").replace(sinkhorn_iterations=7)
        self.assertEqual((sinkhorn.self_mask, sinkhorn.affinity_floor), ("keep", "none"))
        result = cudrift.drift(gen, pos, neg, spec=sinkhorn)
        np.testing.assert_array_equal(result.iterations, [7, 7, 7])
        self.assertEqual(cudrift.drift(gen, pos, spec="notebook").scale, 1.0)

    def test_specs_are_values(self):
        self.assertEqual(cudrift.Spec.official(), cudrift.Spec.official(temperatures=[0.02, 0.05, 0.2]))
        self.assertEqual(cudrift.Spec.paper().affinity_floor, "none")
        self.assertEqual(len({cudrift.Spec.official(), cudrift.Spec.official(), cudrift.Spec.paper()}), 2)
        with self.assertRaises(dataclasses.FrozenInstanceError):
            cudrift.Spec.official().kernel = "gaussian"

    def test_nonfinite_data_is_counted(self):
        gen, pos = samples(9, (2, 2, 8, 4))
        pos[0, 0, 0], pos[0, 1, 1] = np.nan, np.inf
        self.assertEqual(cudrift.drift(gen, pos).nonfinite, 2)

    def test_empty_axes(self):
        gen, pos = np.zeros((2, 0, 5, 3), np.float32)
        self.assertEqual(cudrift.drift(gen, pos).loss.shape, (0,))
        gen, pos = samples(9, (2, 2, 5, 3))
        nothing = np.zeros((2, 0, 3), np.float32)
        np.testing.assert_array_equal(cudrift.drift(gen, pos, nothing).goal, cudrift.drift(gen, pos).goal)
        self.assertEqual(float(np.abs(cudrift.drift(gen, nothing).force).max()), 0.0)
        self.refused("G", cudrift.drift, nothing, pos)


class Refused(Test):
    def test_what_cannot_be(self):
        gen, pos = samples(5, (2, 2, 6, 4))
        refused, drift = self.refused, cudrift.drift
        refused("expected [B, n, D]", drift, gen[0], pos)
        refused("pos has shape [2, 6, 3]", drift, gen, pos[..., :3])
        refused("pos is float16 and gen float32", drift, gen, pos.astype(np.float16))
        refused("gen is int64", drift, gen.astype(int), pos.astype(int))
        refused("another order", drift, gen.astype(">f4"), pos.astype(">f4"))
        refused("gen is list", drift, gen.tolist(), pos)
        refused("gen and pos are needed", drift, gen, None)
        refused("weight_pos is float32 [2, 5]", drift, gen, pos, weight_pos=np.ones((2, 5)))
        refused("weight_positives", drift, gen, pos, weight_pos=np.full((2, 6), np.nan))
        refused("expected one of laplace", drift, gen, pos, kernel="box")
        refused("emperature", drift, gen, pos, temperatures=float("nan"))
        refused("9 temperatures", drift, gen, pos, temperatures=[0.1] * 9)
        refused("the preset is 'best'", drift, gen, pos, spec="best")
        refused("overlaps an input", drift, gen, pos, out={"force": gen})
        both = np.empty_like(gen)
        refused("overlaps", drift, gen, pos, out={"force": both, "gradient": both})
        refused("sinkhorn_iterations is", cudrift.Spec.official().replace, sinkhorn_iterations=(1 << 32) + 3)
        refused("sinkhorn_iterations is -1", cudrift.Spec.official().replace, sinkhorn_iterations=-1)
        refused("out has 'grad'", drift, gen, pos, out={"grad": np.empty_like(gen)})
        refused("without gaps", drift, gen, pos, out={"force": np.empty((2, 6, 8), np.float32)[..., ::2]})
        refused("float32 array", drift, gen, pos, out={"force": np.empty(gen.shape)})
        refused("coupling", cudrift.Spec.official().coupled, "pair")
        refused("iterations", drift, gen, pos, spec=cudrift.Spec.official().coupled("sinkhorn").replace(sinkhorn_iterations=0))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "error::DeprecationWarning")
    unittest.main()
