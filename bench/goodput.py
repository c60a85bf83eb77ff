#!/usr/bin/env python3
"""Compares goodput with Linux's CUBIC over the same emulated network: goodput.py [--receive] [SECONDS [SEEDS]]

Builds and runs the example `goodput` of portolan-net, as root, for a matrix of rates, round-trip times and losses. In
each cell both senders (or, with --receive, both receivers under a sender of Linux) meet the same network and the same
seeds, at about the same time.
"""

import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

PROGRAM = "target/release/examples/goodput"
RATES = [10, 100, 1000]  # megabits a second
RTTS = [10, 50, 200]  # milliseconds
LOSSES = [0, 1, 10, 30]  # of 1,000 data packets


def main():
    arguments = [word for word in sys.argv[1:] if word != "--receive"]
    receive = "--receive" in sys.argv
    seconds = int(arguments[0]) if arguments else 10
    seeds = int(arguments[1]) if len(arguments) > 1 else 3
    build = ["cargo", "build", "--release", "-q", "-p", "portolan-net", "--example", "goodput"]
    subprocess.run(build, check=True)

    def measure(run):
        peer, rate, rtt, loss, seed = run
        ends = ["linux", peer] if receive else [peer, "linux"]
        command = ["unshare", "--net", PROGRAM, "cell", *ends, *map(str, (rate, rtt, loss, seed, seconds))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return float(done.stdout)

    cells = [(rate, rtt, loss) for rate in RATES for rtt in RTTS for loss in LOSSES]
    results = {}
    # What fills the machine runs alone; slow networks are emulated side by side.
    for jobs, chosen in [
        (12, [cell for cell in cells if cell[0] == 10 or cell[0] == 100 and cell[2] >= 10]),
        (4, [cell for cell in cells if cell[0] == 100 and cell[2] < 10 or cell[0] == 1000 and cell[2] >= 10]),
        (2, [cell for cell in cells if cell[0] == 1000 and cell[2] == 1]),
        (1, [cell for cell in cells if cell[0] == 1000 and cell[2] == 0]),
    ]:
        runs = [
            (peer, *cell, seed)
            for cell in chosen
            for seed in range(1, seeds + 1)
            for peer in ("linux", "portolan")
        ]
        with ThreadPoolExecutor(jobs) as pool:
            for run, megabits in zip(runs, pool.map(measure, runs)):
                results.setdefault(run[:4], []).append(megabits)

    good = 0
    worst = None
    print("Mbit/s  RTT ms  loss %   Linux  Portolan  ratio")
    for rate, rtt, loss in cells:
        linux, ours = (statistics.median(results[peer, rate, rtt, loss]) for peer in ("linux", "portolan"))
        ratio = ours / linux
        good += ratio >= 0.95
        worst = ratio if worst is None else min(worst, ratio)
        print(f"{rate:6}  {rtt:6}  {loss / 10:6}  {linux:6.2f}  {ours:8.2f}  {ratio:5.2f}")
    print(f"{good} of {len(cells)} cells at 0.95 or more; the worst is {worst:.2f}")


if __name__ == "__main__":
    main()
