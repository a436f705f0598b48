"""PyTorch's tensors: the golden set, compiled, mixed precision, several processes, derivatives, and what is refused."""

import multiprocessing
import os
import tempfile
import unittest

import cudrift
import numpy as np
import torch
from common import CASES, Case, Test, growth, in_threads, microseconds, samples
from cudrift.torch import drift_loss


# Where PyTorch can be, and within what of f64. It takes no simulator for a device.
DEVICES = {"cpu": 2e-6} | ({"cuda": 1e-5} if torch.cuda.is_available() else {})


def tensors(case):
    return [None if array is None else torch.tensor(array) for array in case.arrays]


def with_gradient(call, gen):
    """Loss, info and the gradient of the losses' sum."""
    gen = gen.detach().clone().requires_grad_()
    loss, info = call(gen)
    (gradient,) = torch.autograd.grad(loss.sum(), gen)
    return loss.detach(), info, gradient


def random(seed, shape, dtype=torch.float32):
    return torch.tensor(samples(seed, shape, np.float64), dtype=dtype)


def worker(rank, size, folder, seed):
    """One of the processes of a data-parallel step: a generator that DistributedDataParallel averages."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    loss, info, gradients = step(seed, rank, size, DistributedDataParallel, dist.group.WORLD, compiled=size == 2)
    torch.save([loss, info, gradients], f"{folder}/{rank}")
    dist.destroy_process_group()


def step(seed, rank=0, size=1, wrap=lambda net: net, group=None, compiled=False):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.SiLU(), torch.nn.Linear(16, 7))
    noise, pos, neg = random(1, (12, 6, 5)), random(2, (12, 9, 7)), random(3, (12, 4, 7))
    weights = [random(k, (12, n)).abs() for k, n in ((4, 6), (5, 9), (6, 4))]
    own = slice(rank * 12 // size, (rank + 1) * 12 // size)
    model = wrap(net)
    call = torch.compile(drift_loss) if compiled else drift_loss
    loss, info = call(model(noise[own]), pos[own], neg[own], *(w[own] for w in weights), process_group=group)
    loss.mean().backward()
    return loss.detach(), info, [p.grad for p in net.parameters()]


def count_threads():
    """The first drifts of a process start no threads, but for the two that PyTorch has; then those of its child."""
    torch.set_num_threads(2)
    torch.ones(1 << 20).sum()

    def running():
        return len(os.listdir("/proc/self/task"))

    before = running()
    pairs = [(random(1, (4, count, 80)), random(2, (4, 64, 80))) for count in (64, 32)]
    want = [drift_loss(*pair)[0] for pair in pairs]
    assert running() == before, f"{before} threads, then {running()}"

    def child():
        for pair, loss in zip(pairs, want):
            assert torch.equal(drift_loss(*pair)[0], loss)
        assert cudrift.drift(*(array.numpy() for array in pairs[0])).loss.shape == (4,)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, f"the child ended with {process.exitcode}"


class Golden(Test):
    def judge(self, case, loss, info, gradient, bound):
        self.near(loss, case.want["loss"], bound, f"{case.name} loss")
        self.near(gradient, case.want["grad_gen"], bound, f"{case.name} gradient")
        self.near(info["scale"], case.want["scale"], bound, f"{case.name} scale")
        self.near([info[f"loss_{r}"] for r in case.temperatures], case.want["loss_R"], bound, f"{case.name} loss_R")
        self.assertEqual(len(info), 1 + len(case.temperatures))

    def test_temperatures_have_the_names_that_they_are_given(self):
        gen, pos = random(1, (2, 6, 4)), random(2, (2, 6, 4))
        for name in (1.0, 1):
            self.assertEqual(list(drift_loss(gen, pos, R_list=[name])[1]), ["scale", f"loss_{name}"])

    def test_the_golden_set(self):
        for path in CASES:
            case = Case(path)
            for device, bound in DEVICES.items():
                gen, *others = (None if t is None else t.to(device) for t in tensors(case))
                loss, info, gradient = with_gradient(lambda x: drift_loss(x, *others, case.temperatures), gen)
                info = {name: value.cpu() for name, value in info.items()}
                self.judge(case, loss.cpu(), info, gradient.cpu(), bound)

    def test_the_golden_set_in_f64(self):
        for path in CASES:
            case = Case(path, np.float64)
            gen, *others = tensors(case)
            result = with_gradient(lambda x: drift_loss(x, *others, case.temperatures), gen)
            self.assertEqual(result[2].dtype, torch.float64)
            self.judge(case, *result, 1e-11)

    def test_compiled_without_a_break(self):
        for path in CASES[:3]:
            case = Case(path)
            gen, *others = tensors(case)
            call = torch.compile(lambda x: drift_loss(torch.tanh(x) * 2, *others, case.temperatures), fullgraph=True)
            loss, info, gradient = with_gradient(call, gen)
            want, own, of = with_gradient(lambda x: drift_loss(torch.tanh(x) * 2, *others, case.temperatures), gen)
            self.near(loss, want, 1e-5)
            self.near(gradient, of, 1e-4)
            self.near(info["scale"], own["scale"], 1e-5)
        spec = cudrift.Spec.paper(kernel="gaussian")
        for choice in (spec, "paper"):
            call = torch.compile(lambda x: drift_loss(x, others[0], spec=choice), fullgraph=True)
            self.near(call(gen)[0], drift_loss(gen, others[0], spec=choice)[0], 1e-6)

    def test_the_operator(self):
        gen, pos = random(1, (2, 6, 4)).requires_grad_(), random(2, (2, 6, 4))
        spec = cudrift.Spec.official().text
        torch.library.opcheck(torch.ops.cudrift.drift, (gen, pos, None, None, None, None, spec, ""))


class Tensors(Test):
    def test_strides_change_nothing(self):
        gen, pos = random(1, (3, 20, 8)), random(2, (3, 20, 8))
        want, _, gradient = with_gradient(lambda x: drift_loss(x, pos), gen)
        spread = torch.zeros(20, 8, 3).copy_(gen.permute(1, 2, 0)).permute(2, 0, 1)
        self.assertFalse(spread.is_contiguous())
        loss, _, other = with_gradient(lambda x: drift_loss(x, pos.flip(1).flip(1)), spread)
        self.assertTrue(torch.equal(loss, want) and torch.equal(other, gradient))
        negative = torch.conj(torch.complex(torch.zeros_like(gen), -gen)).imag
        self.assertTrue(negative.is_neg())
        self.assertTrue(torch.equal(drift_loss(negative, pos)[0], want))
        shared = pos[:1].expand(3, -1, -1)
        self.assertTrue(torch.equal(drift_loss(gen, shared)[0], drift_loss(gen, shared.contiguous())[0]))

    def test_half_precision_and_autocast(self):
        gen, pos = random(3, (2, 16, 8)), random(4, (2, 16, 8))
        for dtype in (torch.float16, torch.bfloat16):
            x, y = gen.to(dtype), pos.to(dtype)
            loss, _, gradient = with_gradient(lambda x: drift_loss(x, y), x)
            exact = cudrift.drift(x.double().numpy(), y.double().numpy())
            self.assertEqual((loss.dtype, gradient.dtype), (torch.float32, dtype))
            self.near(loss, exact.loss, 1e-5)
            self.near(gradient.double(), exact.gradient, 1e-3 if dtype == torch.float16 else 5e-3)
            # Types that differ are promoted.
            loss, _, gradient = with_gradient(lambda x: drift_loss(x, pos), x)
            exact = cudrift.drift(x.double().numpy(), pos.double().numpy())
            self.near(loss, exact.loss, 1e-5)
        net = torch.nn.Linear(8, 8)
        with torch.autocast("cpu", torch.bfloat16):
            made = net(gen)
            self.assertEqual(made.dtype, torch.bfloat16)
            loss, _ = drift_loss(made, pos.bfloat16())
        loss.sum().backward()
        self.assertTrue(loss.dtype == torch.float32 and net.weight.grad.abs().sum() > 0)

    def test_threads(self):
        inputs = [(random(seed, (2, 20, 12)), random(seed + 9, (2, 20, 12))) for seed in range(4)]
        want = [with_gradient(lambda x: drift_loss(x, y), x)[2] for x, y in inputs]

        def work(k):
            x, y = inputs[k]
            return [with_gradient(lambda x: drift_loss(x, y), x)[2] for _ in range(20)]

        got = in_threads(work, 4)
        self.assertTrue(all(torch.equal(g, w) for results, w in zip(got, want) for g in results))

    def test_work_is_done_by_pytorchs_threads(self):
        gen, pos = random(1, (4, 64, 80)), random(2, (4, 64, 80))
        want, set_to = drift_loss(gen, pos)[0], torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                self.assertTrue(torch.equal(drift_loss(gen, pos)[0], want))
        finally:
            torch.set_num_threads(set_to)
        # In a process that has no threads of cudrift's from before.
        alone = multiprocessing.get_context("spawn").Process(target=count_threads)
        alone.start()
        alone.join(300)
        self.assertEqual(alone.exitcode, 0)

    def test_twenty_thousand_calls_leave_nothing(self):
        gen, pos = random(5, (1, 4, 2)).requires_grad_(), random(6, (1, 4, 2))

        def with_gradient():
            torch.autograd.grad(drift_loss(gen, pos)[0].sum(), gen)

        self.assertLess(growth(with_gradient), 20)
        alone, both = microseconds(lambda: drift_loss(gen, pos)), microseconds(with_gradient)
        print(f"a call of 4 x 8 pairs by PyTorch: {alone:.1f} microseconds, {both:.1f} with its gradient")

    def test_forked_workers(self):
        gen, pos = random(7, (4, 96, 48)), random(8, (4, 96, 48))
        want = drift_loss(gen, pos)[0]

        class Losses(torch.utils.data.Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, _):
                return drift_loss(gen, pos)[0]

        loader = torch.utils.data.DataLoader(Losses(), batch_size=None, num_workers=2, multiprocessing_context="fork")
        for loss in loader:
            self.near(loss, want, 1e-6)


class Derivatives(Test):
    def test_of_the_frozen_regression(self):
        """The closed form is the derivative of (x / sigma - goal)^2 with goal and sigma held, also the second one."""
        gen, pos = random(1, (2, 6, 3), torch.float64).requires_grad_(), random(2, (2, 6, 3), torch.float64)
        at = cudrift.drift(gen.detach().numpy(), pos.numpy())
        goal = torch.tensor(at.goal)

        def frozen(x):
            return ((x / at.sigma - goal) ** 2).mean((1, 2))

        self.assertTrue(torch.autograd.gradcheck(frozen, gen) and torch.autograd.gradgradcheck(frozen, gen))
        weights, direction = torch.tensor([0.7, -1.3], dtype=torch.float64), random(3, gen.shape, torch.float64)

        def second(loss):
            (first,) = torch.autograd.grad((loss**2 * weights).sum(), gen, create_graph=True)
            (other,) = torch.autograd.grad((first * direction).sum(), gen)
            return first.detach(), other

        for got, want in zip(second(drift_loss(gen, pos)[0]), second(frozen(gen))):
            self.near(got, want, 1e-12)

    def test_nothing_else_has_a_gradient(self):
        gen, pos, neg = (random(k, (2, 6, 3)).requires_grad_() for k in range(3))
        loss, info = drift_loss(gen, pos, neg, torch.ones(2, 6, requires_grad=True))
        loss.sum().backward()
        self.assertTrue(gen.grad is not None and pos.grad is None and neg.grad is None)
        self.assertFalse(any(value.requires_grad for value in info.values()))
        with torch.no_grad():
            self.assertFalse(drift_loss(gen, pos)[0].requires_grad)


class Processes(Test):
    def test_two_to_four_processes_are_one(self):
        want_loss, want_info, want = step(11)
        for size in (2, 3, 4):
            with tempfile.TemporaryDirectory() as folder:
                torch.multiprocessing.spawn(worker, args=(size, folder, 11), nprocs=size)
                results = [torch.load(f"{folder}/{rank}") for rank in range(size)]
            self.near(torch.cat([loss for loss, _, _ in results]), want_loss, 1e-6)
            for _, info, gradients in results:
                for key, value in want_info.items():
                    self.near(info[key], value, 1e-6, key)
                for got, expected in zip(gradients, want):
                    self.near(got, expected, 1e-6)


class Refused(Test):
    def test_what_cannot_be(self):
        gen, pos = random(1, (2, 6, 4)), random(2, (2, 6, 4))
        refused = self.refused
        refused("expected [B, n, D]", drift_loss, gen[0], pos[0])
        refused("pos has shape [2, 6, 3]", drift_loss, gen, pos[..., :3])
        refused("gen is torch.int64", drift_loss, gen.long(), pos.long())
        refused("weight_pos is float32 [2, 5]", drift_loss, gen, pos, weight_pos=torch.ones(2, 5))
        refused("weight_positives", drift_loss, gen, pos, weight_pos=torch.full((2, 6), float("nan")))
        refused("emperature", drift_loss, gen, pos, R_list=(-1.0,))
        refused("meta", drift_loss, gen.to("meta"), pos.to("meta"))
        refused("cpu, meta", drift_loss, gen, pos.to("meta"))
        refused("G", drift_loss, gen[:, :0], pos)
        self.assertEqual(drift_loss(gen[:0], pos[:0])[0].shape, (0,))
        self.assertEqual(float(drift_loss(gen, pos[:, :0])[0].abs().max()), 0.0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    unittest.main()
