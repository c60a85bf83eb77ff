"""Times commands that take turns: take_turns.py TURNS PEER:OURS,PEER:OURS… <COMMANDS

Standard input holds a command a line; only its first word's last part shows in the table. The first turn warms the
caches and does not count. Printed are, of each command, the median and the fastest wall time, the median CPU time
(user and system), the highest resident memory, and then the ratios of medians that were asked for.

The kernel counts the memory of a child from before it runs its program, so no figure is below this script's own.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time


def main():
    turns = int(sys.argv[1])
    ratios = [pair.split(":") for pair in sys.argv[2].split(",")]
    commands, missing = {}, []
    for line in sys.stdin:
        words = line.split()
        name = " ".join([os.path.basename(words[0]), *words[1:]])
        if shutil.which(words[0]):
            commands[name] = words
        else:
            missing.append(words[0])

    wall = {name: [] for name in commands}
    cpu = {name: [] for name in commands}
    memory = dict.fromkeys(commands, 0)
    for turn in range(turns + 1):
        for name, words in commands.items():
            seconds, usage = run(words)
            if turn > 0:
                wall[name].append(seconds)
                cpu[name].append(usage.ru_utime + usage.ru_stime)
                memory[name] = max(memory[name], usage.ru_maxrss)

    print(f"{'command':24} {'median ms':>10} {'min ms':>9} {'CPU ms':>9} {'MiB':>6}")
    for name in commands:
        middle, fastest = statistics.median(wall[name]), min(wall[name])
        busy = statistics.median(cpu[name])
        print(f"{name:24} {middle * 1e3:10.2f} {fastest * 1e3:9.2f} {busy * 1e3:9.2f} {memory[name] / 1024:6.1f}")
    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"(no memory figure can be below {floor:.1f} MiB)")
    for theirs, ours in ratios:
        if theirs in commands and ours in commands:
            by_wall = statistics.median(wall[theirs]) / statistics.median(wall[ours])
            by_cpu = statistics.median(cpu[theirs]) / max(statistics.median(cpu[ours]), 1e-6)
            print(f"{theirs} / {ours} = {by_wall:.1f} (CPU time: {by_cpu:.1f})")
    for name in sorted(set(missing)):
        print(f"skipped: {name} is not installed")


def run(words):
    """Runs one command; gives its seconds and what the kernel counted. Ours must not fail."""
    started = time.perf_counter()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if os.path.basename(words[0]) == "portolan" and process.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return seconds, usage


main()
