"""Taking turns: a trainer that trains for a while when it is told to and waits in between.

Trainers are processes of their own, some of another Python. A line `SECONDS` on standard input begins a turn; when that
time has passed and the step has ended, one line of JSON says how many training targets the turn had and how long it
took. This module imports nothing but the standard library, so that the peers' Python can import it too.
"""

import json
import os
import sys
import time

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What a turn is measured by: ``cpu`` is for a machine that has other work to do, with one thread."""


class Turns:
    """The turns of one trainer; :meth:`step_done` waits for the next one where one has ended."""

    def __init__(self, clock: str, warm_up: int = 3) -> None:
        """Take the first ``warm_up`` steps without a turn: memory is fetched, kernels are chosen.

        ``clock`` is a name in :data:`CLOCKS`.
        """
        self.now = CLOCKS[clock]
        self._left = warm_up
        self._targets = self._steps = 0
        self._begun = self._until = 0.0

    def step_done(self, targets: int) -> None:
        """Count one training step over ``targets`` real targets; end the process where there are no more turns."""
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self._answer({"ready": True})
            return
        self._targets += targets
        self._steps += 1
        now = self.now()
        if now >= self._until:
            self._answer({"targets": self._targets, "steps": self._steps, "seconds": now - self._begun})

    def leave_out(self, seconds: float) -> None:
        """Take time out of the turn that was spent on something other than training."""
        self._begun += seconds
        self._until += seconds

    def _answer(self, said: dict[str, object]) -> None:
        print(json.dumps(said), file=sys.stdout, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)  # there is nothing to tidy up
        self._targets = self._steps = 0
        self._begun = self.now()
        self._until = self._begun + float(line)
