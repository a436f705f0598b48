#!/usr/bin/env python3
"""Trains a generator of the ring by several processes, each with a part of the groups, and shows that they are one.

    python examples/data_parallel_torch.py --processes 4

Needs PyTorch and the wheel of cudrift. On GPUs replace "gloo" by "nccl" and move tensors there.
"""

import argparse
import math
import tempfile

import torch
import torch.distributed as dist
from cudrift.torch import drift_loss
from torch.nn.parallel import DistributedDataParallel

GROUPS, SAMPLES, STEPS = 12, 64, 20


def ring(generator, count):
    angle = 2 * math.pi * torch.rand(count, SAMPLES, generator=generator)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def train(rank, size, folder):
    """What every process does; the first prints. One process alone needs no group."""
    torch.set_num_threads(1)
    group = None
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        group = dist.group.WORLD
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2))
    model = DistributedDataParallel(net) if size > 1 else net
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    numbers = torch.Generator().manual_seed(1)
    own = slice(rank * GROUPS // size, (rank + 1) * GROUPS // size)
    for step in range(STEPS):
        # Every process draws all groups and takes its own: the data are the same, however many there are.
        noise, data = torch.randn(GROUPS, SAMPLES, 2, generator=numbers), ring(numbers, GROUPS)
        loss, info = drift_loss(model(noise[own]), data[own], process_group=group)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        if rank == 0 and step % 5 == 4:
            print(f"step {step + 1}: scale {info['scale'].item():.4f}, f2 {info['loss_0.05'].item():.3e}", flush=True)
    if rank == 0:
        torch.save(net.state_dict(), f"{folder}/{size}")
    if size > 1:
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    size = parser.parse_args().processes
    with tempfile.TemporaryDirectory() as folder:
        print(f"{size} processes")
        torch.multiprocessing.spawn(train, args=(size, folder), nprocs=size)
        print("1 process")
        train(0, 1, folder)
        many, one = torch.load(f"{folder}/{size}"), torch.load(f"{folder}/1")
    apart = max(float((many[name] - one[name]).abs().max()) for name in one)
    print(f"parameters are {apart:.1e} apart")


if __name__ == "__main__":
    main()
