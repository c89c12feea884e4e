"""Trains a small byte-level language model on a token dataset.

    stokerd &
    python language_model.py                 # makes tokens of Python's own library
    python language_model.py --data DIR      # .bin files of nanoGPT, llm.c or Megatron

Needs torch. The tokens come as views of the daemon's memory in the files' own type
(uint16); they become int64 on the device, where that costs nothing.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import stoker


class Model(nn.Module):
    """A transformer small enough for a CPU."""

    def __init__(self, vocabulary: int, block_size: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(block_size, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(block_size), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [rows, block_size, vocabulary] of tokens [rows, block_size]."""
        places = torch.arange(x.shape[1], device=x.device)
        logits: torch.Tensor = self.head(
            self.layers(self.tokens(x) + self.places(places), mask=self.mask, is_causal=True)
        )
        return logits


def make_tokens(directory: Path, size: int) -> None:
    """Write about ``size`` bytes of Python source as uint16 tokens, one a byte."""
    directory.mkdir(parents=True, exist_ok=True)
    text = bytearray()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if len(text) >= size:
            break
        text += path.read_bytes()
    np.frombuffer(bytes(text[:size]), np.uint8).astype(np.uint16).tofile(directory / "train.bin")


def ensure_dataset(name: str, directory: Path) -> None:
    """Give the directory a name at the daemon, unless it has one already."""
    try:
        stoker.dataset_info(name)
    except stoker.NotFoundError:
        stoker.add_dataset(name, directory, format="tokens")


def main() -> None:
    """Train, then say what the loss did and what the training loop waited for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="directory of .bin files (default: make one in ./example-data)")
    parser.add_argument("--dataset", default="example-text", help="name of the dataset at the daemon")
    parser.add_argument("--vocabulary", type=int, default=256, help="number of different tokens (GPT-2: 50257)")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="a few seconds, as the tests run it")
    arguments = parser.parse_args()
    steps, block_size, width = (60, 32, 32) if arguments.quick else (arguments.steps, 128, 128)

    directory = arguments.data or Path("example-data/text")
    if arguments.data is None and not directory.exists():
        make_tokens(directory, 1 << 20)
    ensure_dataset(arguments.dataset, directory)

    # drop_last: every batch has the same shape, which compiled models and CUDA graphs want.
    ds = stoker.Dataset(arguments.dataset, batch_size=32, block_size=block_size, shuffle=True, seed=7, drop_last=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = Model(arguments.vocabulary, block_size, width, layers=2).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: list[float] = []
    while len(losses) < steps:
        for batch in ds:  # one epoch; the next iter() is the next epoch, in another order
            x = batch["x"].to(device, non_blocking=True).long()
            y = batch["y"].to(device, non_blocking=True).long()
            loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break

    stats = ds.stats()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps, {stats.samples} samples")
    print(f"stalled {stats.stall_share:.1%} of {stats.wall_seconds:.1f} s")
    ds.close()


if __name__ == "__main__":
    main()
