"""The rules: one table, of which reports, comments and documents take their words.

A rule's id is what `# perdure: allow[id] reason` names. People rely on it: never
change one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that workflow code may not do."""

    id: str
    title: str
    """The rule in a few words."""
    why: str
    """What happens otherwise."""
    fix: str
    """What to write instead."""


_STEP = "Move it into a function with @step and await that."

_TABLE = (
    Rule(
        "clock",
        "Workflow code reads a clock",
        "A replay reads another time, and may then take another branch.",
        "Use perdure.now(), or asyncio.get_running_loop().time(): the run's own time.",
    ),
    Rule(
        "random",
        "Workflow code draws random numbers",
        "A replay draws others, and may then take another branch.",
        "Use perdure.random(), or draw in a @step.",
    ),
    Rule(
        "uuid",
        "Workflow code makes a random id",
        "A replay makes another one, so that steps are asked for with other arguments.",
        "Use perdure.uuid().",
    ),
    Rule(
        "environment",
        "Workflow code reads the process's surroundings",
        "A replay may run in another process, on another machine, after a deploy.",
        "Pass the value as an argument of the workflow, or read it in a @step.",
    ),
    Rule(
        "file",
        "Workflow code touches files",
        "It is done again in each replay, what it reads may have changed, and it holds the engine's loop.",
        _STEP,
    ),
    Rule(
        "network",
        "Workflow code uses the network",
        "It is done again in each replay, and another answer leads to another branch.",
        _STEP,
    ),
    Rule(
        "process",
        "Workflow code starts or ends processes",
        "It is done again in each replay.",
        _STEP,
    ),
    Rule(
        "library",
        "Workflow code calls a library that does I/O",
        "Without a step around it, the effect happens again in each replay and its result is not recorded.",
        _STEP,
    ),
    Rule(
        "thread",
        "Workflow code uses threads or pools",
        "A thread's answer comes at any moment; a run's moments are those of its journal.",
        "Move it into a plain `def` with @step: that runs on a thread.",
    ),
    Rule(
        "loop",
        "Workflow code runs or changes the event loop",
        "The run has a loop of its own, which only the engine drives.",
        "Await the coroutine, or use asyncio.create_task.",
    ),
    Rule(
        "blocking-sleep",
        "Workflow code blocks the thread to wait",
        "It stops every run of the engine, and waits again in each replay.",
        "Use `await asyncio.sleep(…)`: it is durable.",
    ),
    Rule(
        "set-order",
        "The order of a set decides something",
        "Text hashes differently in each process, so a replay sees another order.",
        "Use sorted(…), or keep the values in a list or as the keys of a dict.",
    ),
    Rule(
        "hash",
        "The value of hash() or id() is used",
        "It is another one in each process.",
        "Compare the values themselves, or use hashlib.",
    ),
    Rule(
        "global-mutated",
        "Workflow code changes what all runs share",
        "A replay changes it again, and other runs see it.",
        "Keep it in a local variable, publish it with State, or store it in a @step.",
    ),
    Rule(
        "step-state",
        "A step changes what workflow code sees",
        "A replay does not run the step again, so the workflow then misses the change.",
        "Return the value from the step.",
    ),
    Rule(
        "step-inline",
        "Workflow code calls a step's bare function",
        "`.fn` runs the function in the workflow: nothing is recorded, and each replay does it again.",
        "Await the step itself.",
    ),
    Rule(
        "not-awaited",
        "A call is made and not awaited",
        "It does not happen; of a step, the run parks.",
        "Write `await` before it, or give it to asyncio.create_task or gather.",
    ),
    Rule(
        "swallowed-cancel",
        "A cancellation is caught and not raised again",
        "The run does not stop when it is told to.",
        "Catch Exception, or end the handler with `raise`.",
    ),
    Rule(
        "not-serialisable",
        "A type hint that cannot be stored",
        "Arguments and results are kept as JSON, read back by their hints.",
        "Pass plain data: dataclasses, lists, dicts, text, numbers, dates; open connections inside the step.",
    ),
    Rule(
        "allow-comment",
        "A `# perdure: allow[…]` comment that allows nothing",
        "It names no rule, or gives no reason.",
        "Write `# perdure: allow[rule] reason`.",
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _TABLE}
"""By id, in the order in which documents list them."""
