"""What both peers share: a process that answers one JSON object per line with one JSON object per line."""

import json
import os
import sys
import time

TEMPERATURES = (0.2, 0.05, 0.02)
# How the contraction is written, (temperatures at once, cross); the fastest on a shape is what a peer reports there:
#   batched  all temperatures as one product [R G, T] x [T, D]
#   loop     one product per temperature
#   cross    positives and negatives apart, so that no coefficient matrix is formed
ALL, EACH = [TEMPERATURES], [(r,) for r in TEMPERATURES]
FORMS = {"batched": (ALL, False), "loop": (EACH, False), "cross": (EACH, True), "batched cross": (ALL, True)}


def serve(peer):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = getattr(peer, ask.pop("do"))(**ask)
        except Exception as error:  # handed over to run.py, which stops with it
            answer = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        print(json.dumps(answer or {}), file=answers, flush=True)


def seconds(call, runs):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


class Peer:
    """Holds `call`, what is timed, and `inside`, the same by cudrift's front end for this framework."""

    def keep_fastest(self, calls):
        """Keeps the fastest of `calls`. They take turns, so that noise hits all alike; the first calls compile."""
        best = {name: min(seconds(call, 2)) for name, call in calls.items()}
        for _ in range(3):
            for name, call in calls.items():
                best[name] = min(best[name], *seconds(call, 2 if best[name] > 0.2 else 10))
        form = min(best, key=best.get)
        self.call = calls[form]
        return {"form": form, "tried_ms": {name: round(1e3 * value, 2) for name, value in best.items()}}

    def time(self, runs, inside=False):
        """`inside`: of cudrift from inside this framework."""
        return {"seconds": seconds(self.inside if inside else self.call, runs)}
