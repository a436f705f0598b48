"""The official drift loss (spec 2.2) and the toy training (spec 10.1) in PyTorch, float32.

`torch_peer.py eager|compile THREADS`, spoken to by run.py."""

import itertools
import statistics
import sys
import time
import warnings

import numpy as np
import torch

import worker

warnings.simplefilter("ignore")
torch.set_float32_matmul_precision("highest")

# Tried besides worker.FORMS, no faster beyond noise: torch.cdist for the distances, with and without its product path;
# logsumexp in place of the two softmaxes; f2 from a [T, T] product; for D = 2 sums in place of products; the
# max-autotune mode of torch.compile.
# One exponential for rows and columns together saves up to a third on d, but is not the same function: where the
# generated samples are bunched far from the data, as when a training begins, it underflows and gives NaN.


def distances(x, y):
    squares = y.square().sum(-1)
    q = torch.baddbmm(squares[:, None], x, y.mT, alpha=-2)
    q += squares[:, : x.shape[1], None]
    return q.clamp_(min=1e-8).sqrt_()


def forces(dist, scale, y, k, temperatures, cross):
    """Unnormalised forces [B, R, G, D] for the R temperatures given."""
    b, g, t = dist.shape
    logits = dist[:, None] * (-1 / (scale * dist.new_tensor(temperatures)))[:, None, None]
    a = torch.softmax(logits, -1)
    a *= torch.softmax(logits, -2)
    a = a.clamp_(min=1e-6).sqrt_()
    product = lambda a, y: torch.bmm(a.reshape(b, -1, a.shape[-1]), y).view(b, -1, g, y.shape[-1])
    neg, pos = a[..., :k], a[..., k:]
    s_neg, s_pos = neg.sum(-1, keepdim=True), pos.sum(-1, keepdim=True)
    if cross:
        return product(pos, y[:, k:]).mul_(s_neg).sub_(product(neg, y[:, :k]).mul_(s_pos))
    return product(torch.cat([neg * -s_pos, pos * s_neg], -1), y)  # its row sums are 0: no - sum(C) x


@torch.no_grad()
def target(gen, neg, pos, form):
    (_, g, d), k = gen.shape, gen.shape[1] + neg.shape[1]
    y = torch.cat([gen, neg, pos], 1)
    dist = distances(gen, y)
    scale = dist.mean()  # all weights are 1 and left out
    sigma, floored = (scale / d**0.5).clamp(min=1e-3), scale.clamp(min=1e-3)
    dist[:, :, :g].diagonal(dim1=1, dim2=2).add_(100 * floored)
    parts, cross = worker.FORMS[form]
    total = 0
    for temperatures in parts:
        force = forces(dist, floored, y, k, temperatures, cross)
        norm = (force.square().mean((0, 2, 3), keepdim=True) / sigma**2).clamp(min=1e-8).sqrt()
        total = total + (force * (1 / (sigma * norm))).sum(1)
    return sigma, gen / sigma + total


def official(gen, neg, pos, form):
    sigma, goal = target(gen.detach(), neg, pos, form)
    return (gen / sigma - goal).square().mean((1, 2))


def notebook(gen, pos, temperature=0.05):
    """The toy field (spec 2.7): loss [1] of gen and pos [1, n, D]."""
    with torch.no_grad():
        g, y = gen.shape[1], torch.cat([gen, pos], 1)
        dist = distances(gen, y)
        dist[:, :, :g].diagonal(dim1=1, dim2=2).fill_(1e6)
        kernel = dist.mul_(-1 / temperature).exp_()
        kernel *= (kernel.sum(-1, keepdim=True) * kernel.sum(-2, keepdim=True)).clamp_(min=1e-12).rsqrt_()
        own, other = kernel[..., :g], kernel[..., g:]
        force = other @ pos * own.sum(-1, keepdim=True) - own @ gen * other.sum(-1, keepdim=True)
        goal = gen + force
    return (gen - goal).square().mean((1, 2))


def swiss_roll(n):
    t = torch.pi * (0.5 + 4 * torch.rand(n))
    points = torch.stack([t * t.cos(), t * t.sin()], 1)
    return points / points.abs().max() + 0.03 * torch.randn(n, 2)


class Torch(worker.Peer):
    def __init__(self, mode):
        self.compiled = (lambda f: torch.compile(f, dynamic=False)) if mode == "compile" else lambda f: f

    def load(self, case):
        arrays = np.load(case)
        self.inputs = [torch.from_numpy(arrays[name]) for name in ("gen", "neg", "pos")]
        gen = self.inputs[0].requires_grad_()

        def call(form):
            loss = self.compiled(lambda *inputs: official(*inputs, form))

            def step():
                gen.grad = None
                per_group = loss(*self.inputs)
                per_group.sum().backward()
                return per_group.detach(), gen.grad

            return step

        return self.keep_fastest({form: call(form) for form in worker.FORMS})

    def load_inside(self, case):
        from cudrift.torch import drift_loss

        arrays = np.load(case)
        gen, neg, pos = (torch.from_numpy(arrays[name]) for name in ("gen", "neg", "pos"))
        gen.requires_grad_()

        def step():
            gen.grad = None
            per_group = drift_loss(gen, pos, neg, R_list=worker.TEMPERATURES)[0]
            per_group.sum().backward()
            return per_group.detach(), gen.grad

        self.inside = step
        self.time(2, inside=True)

    def compute(self, out, inside=False):
        loss, grad = self.inside() if inside else self.call()
        np.savez(out, loss=loss.numpy(), grad_gen=grad.numpy())

    def truth(self, case, out, dialect):
        """The same formulas in f64, one temperature at a time to spare memory."""
        arrays = {name: torch.from_numpy(array).double() for name, array in np.load(case).items()}
        gen = arrays["gen"].requires_grad_()
        if dialect == "notebook":
            loss = notebook(gen, arrays["pos"])
        else:
            loss = official(gen, arrays["neg"], arrays["pos"], "loop")
        loss.sum().backward()
        np.savez(out, loss=loss.detach().numpy(), grad_gen=gen.grad.numpy())

    def load_training(self):
        torch.manual_seed(42)
        layers = [torch.nn.Linear(32, 256), torch.nn.SiLU()]
        for _ in range(2):
            layers += [torch.nn.Linear(256, 256), torch.nn.SiLU()]
        generator = torch.nn.Sequential(*layers, torch.nn.Linear(256, 2))
        adam = torch.optim.Adam(generator.parameters(), lr=1e-3, fused=True)
        loss = self.compiled(lambda noise, data: notebook(generator(noise)[None], data[None]).sum())

        def step():
            adam.zero_grad()
            loss(torch.randn(2048, 32), swiss_roll(2048)).backward()
            adam.step()

        self.call = step
        self.time(5)  # compiles

        def parts():
            """The step in pieces, as `cudrift train --profile` has them: the moments between."""
            moments = [time.perf_counter()]
            lap = lambda: moments.append(time.perf_counter())
            noise, data = torch.randn(2048, 32), swiss_roll(2048)
            lap()
            samples = generator(noise)
            lap()
            frozen = samples.detach().requires_grad_()
            notebook(frozen[None], data[None]).sum().backward()
            lap()
            samples.backward(frozen.grad)
            lap()
            adam.step()
            adam.zero_grad()
            lap()
            return moments

        self.parts = parts

    def time_parts(self, runs):
        laps = [[end - begin for begin, end in itertools.pairwise(self.parts())] for _ in range(runs)]
        return {"seconds": [statistics.median(lap) for lap in zip(*laps)]}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    worker.serve(Torch(sys.argv[1]))
