"""`python -m programs NAME [--library torch] [--steps N]`: train one of the programs."""

import argparse

import numpy as np

from programs import NAMES, load

parser = argparse.ArgumentParser(prog="programs", description=__doc__)
parser.add_argument("name", choices=NAMES)
parser.add_argument("--library", choices=("minidl", "torch"), default="minidl")
parser.add_argument("--steps", type=int, default=300)


def main(name: str, library: str, steps: int) -> None:
    program = load(name, library)
    program.torch.manual_seed(0)
    net = program.model()
    for step, loss in enumerate(program.train(net, np.random.default_rng(0), steps)):
        if step % max(steps // 10, 1) == 0 or step == steps - 1:
            print(f"{name} on {library}: step {step}, loss {loss:.4f}")


main(**vars(parser.parse_args()))
