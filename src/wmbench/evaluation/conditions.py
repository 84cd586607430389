"""Everything that decides an outcome but who acts. Only results of the same conditions are compared."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Facts = dict[str, Any]  # dotted names -> plain values


@dataclass(frozen=True)
class Conditions:
    """Settings of an evaluation; None for what does not reach the actor: floors do not plan, only a model sees pixels.

    maze: rows of the map.
    tasks: the hash of starts and goals.
    max_steps: env steps of an episode, or None where it ends with its success only.
    round_steps: env steps of a round, where the protocol counts rounds.
    agent: without memory_gb, which changes the last digits of costs at most.
    seed: of the planner's noise or the random actions.
    view: renderer and size of the frames that the model sees.
    precision, compile: of a model's rollouts.
    code: versions of the code that plays (`episodes`) and that plans (`planner`).
    """

    maze: Sequence[str]
    frameskip: int
    tasks: str
    protocol: Facts
    max_steps: int | None
    round_steps: int | None = None
    agent: Facts | None = None
    planner: Facts | None = None
    objective: Facts | None = None
    seed: int | None = None
    view: Facts | None = None
    precision: str | None = None
    compile: bool | None = None
    code: Facts | None = None

    @property
    def facts(self) -> Facts:
        """Every setting that reaches the actor, under its dotted name."""
        return dict(flat({name: value for name, value in asdict(self).items() if value is not None}))

    @property
    def hash(self) -> str:
        return digest(self.facts)

    def differences(self, other: "Conditions") -> dict[str, tuple[Any, Any]]:
        """Settings that reach both actors and differ, with both values."""
        mine, others = self.facts, other.facts
        return {name: (mine[name], others[name]) for name in mine if name in others and mine[name] != others[name]}


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names and plain values; 1.0 is 1, as on a command line."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from flat(child, f"{prefix}{name}.")
    else:
        whole = isinstance(node, float) and node.is_integer()
        value = int(node) if whole else " / ".join(map(str, node)) if isinstance(node, list | tuple) else node
        yield prefix.removesuffix("."), value


def digest(facts: Facts) -> str:
    """Eight hex digits that name the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def varying(rows: Sequence[Facts]) -> list[Facts]:
    """Facts of each row that are not the same in all rows; rows that lack a fact do not count."""
    known: dict[str, set[str]] = {}
    for facts in rows:
        for name, value in facts.items():
            known.setdefault(name, set()).add(repr(value))
    return [{name: value for name, value in facts.items() if len(known[name]) > 1} for facts in rows]


def in_words(facts: Facts) -> str:
    """`check last_step, num_samples 300, class CEM`."""
    return ", ".join(f"{_word(name)} {_plain(name, value)}" for name, value in facts.items())


def _word(name: str) -> str:
    """The last part of a dotted name; a class or a name goes by what it is the class or name of."""
    *parents, leaf = name.split(".")
    return parents[-1] if parents and leaf in ("_target_", "name") else leaf


def _plain(name: str, value: Any) -> str:
    return value.rpartition(".")[2] if name.endswith("_target_") else "none" if value is None else str(value)
