"""Training in the modes that torch offers: mixed precision, compiled modules, several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

import verif
from verif.training import IBP, SABR, CrownIBP, FusedCrownIBP

ROOT = Path(__file__).resolve().parents[2]


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("loss", [IBP(), IBP(0.5), CrownIBP(), FusedCrownIBP(), SABR()], ids=lambda x: type(x).__name__)
def test_bounds_keep_their_precision_under_autocast(loss) -> None:  # type: ignore[no-untyped-def]
    x, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    module = conv_net()
    compiled, region, rows = verif.compile(module, x), verif.around(x, 0.02), torch.eye(3)
    plain = compiled.step(x, statistics=False)
    with torch.autocast("cpu", torch.bfloat16):
        step = compiled.step(x, statistics=False)
        assert torch.equal(step.lower(region, rows, "crown"), plain.lower(region, rows, "crown"))
        torch.manual_seed(1)
        found = loss(step, region, labels)
    torch.manual_seed(1)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(loss(plain, region, labels).item(), rel=1e-2)
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_what_torch_compiles_is_read_as_its_module() -> None:
    x, module = torch.rand(3, 1, 4, 4), conv_net()
    compiled = verif.compile(torch.compile(module, backend="eager"), x)  # type: ignore[arg-type]
    assert compiled.module is module
    torch.testing.assert_close(compiled.step(x, radii={"0.weight": 0.1}).outputs, module(x))


class Certified(nn.Module):
    """A loss as a module."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.module, self.compiled = module, verif.compile(module, x)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return IBP()(self.compiled.step(x), verif.around(x, 0.1), labels)


def test_a_parallel_module_of_one_process_is_the_module(tmp_path: Path) -> None:
    x, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    module = Certified(conv_net(), x)
    distributed.init_process_group("gloo", f"file://{tmp_path / 'rendezvous'}", world_size=1, rank=0)
    try:
        module(x, labels).backward()
        alone = [p.grad for p in module.parameters()]
        module.zero_grad(set_to_none=True)
        nn.parallel.DistributedDataParallel(module)(x, labels).backward()
        torch.testing.assert_close([p.grad for p in module.parameters()], alone)
    finally:
        distributed.destroy_process_group()


WORKER = """
import sys
from datetime import timedelta
import torch
from torch import distributed, nn
import verif
from verif.training import IBP

class Certified(nn.Module):
    def __init__(self, module, x):
        super().__init__()
        self.module, self.compiled = module, verif.compile(module, x)

    def forward(self, x, labels):
        return IBP()(self.compiled.step(x), verif.around(x, 0.1), labels)

rank, file = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
module, x, labels = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), torch.rand(6, 4), torch.arange(6) % 3
distributed.init_process_group("gloo", f"file://{file}", timedelta(seconds=60), 2, rank)
own = slice(3 * rank, 3 * rank + 3)
parallel = nn.parallel.DistributedDataParallel(Certified(module, x))
parallel(x[own], labels[own]).backward()
shared = [p.grad.clone() for p in module.parameters()]
module.zero_grad()
Certified(module, x)(x, labels).backward()
for one, all in zip(shared, module.parameters(), strict=True):
    torch.testing.assert_close(one, all.grad)
distributed.destroy_process_group()
print("equal")
"""


@pytest.mark.long
def test_two_processes_find_the_gradients_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "rendezvous")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for rank in range(2)
    ]  # fmt: skip
    for run in runs:
        out, err = run.communicate(timeout=240)
        assert out == "equal\n", err
