"""Values decided one by one, each with its reason: a config value beats a rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

GIVEN = "given in the config"

Decision = tuple[Any, str]  # a value, and the sentence that says why
Rule = Callable[[], Decision]


@dataclass
class Decisions:
    """The reasons that came together so far: dotted key -> sentence."""

    reasons: dict[str, str] = field(default_factory=dict)

    def one(self, key: str, asked: Any, rule: Rule) -> Any:
        """`asked`, unless it is auto: then what the rule says. Notes the reason."""
        if asked != "auto":
            self.reasons[key] = GIVEN
            return asked
        value, self.reasons[key] = rule()
        return value

    def section(self, part: str, asked: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
        """All values of a section of the config, those that have a rule decided."""
        return {**asked, **{name: self.one(f"{part}.{name}", asked[name], rule) for name, rule in rules.items()}}
