"""``relprop rule``"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..failures import Usage, meant
from ..options import Common
from ..output import show, table


def rule(name: str | None = None, /, *, common: Common | None = None) -> int:
    """Tell what a rule or composite computes, where it is from, and when to use it.

    Args:
        name: Of a rule in relprop.rules, or of a composite; without it all of them are listed.
    """
    common, known = common or Common(), _known()
    if name is None:
        rows = [(one, _first_line(made)) for one, made in known.items()]
        show(table([("name", "what it does"), *rows]), dict(rows), common)
        return 0
    found = [one for one in known if _letters(one) == _letters(name)]
    if not found:
        raise Usage(f"there is no rule or composite {name!r}; {meant(name, known)}")
    told = [{"name": one, "call": _call(one, known[one]), "text": inspect.getdoc(known[one]) or ""} for one in found]
    show("\n\n\n".join(f"{one['call']}\n\n{one['text']}" for one in told), told, common)
    return 0


def _letters(name: str) -> str:
    """A name however it is written: epsilon-plus, EpsilonPlus."""
    return name.casefold().replace("_", "").replace("-", "")


def _known() -> Mapping[str, Any]:
    """Rules, then composites, by name."""
    from relprop import composites, rules

    abstract = {rules.Rule, rules.LinearRule, rules.SplitRule}
    classes = {name: getattr(rules, name) for name in rules.__all__ if inspect.isclass(getattr(rules, name))}
    found = {name: made for name, made in classes.items() if issubclass(made, rules.Rule) and made not in abstract}
    return {**dict(sorted(found.items())), **dict(sorted(composites.NAMED.items()))}


def _first_line(made: Any) -> str:
    return " ".join((inspect.getdoc(made) or "").split("\n\n")[0].split())


def _call(name: str, made: Any) -> str:
    """How it is made, with its defaults."""
    parameters = inspect.signature(made).parameters.values()
    options = ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in parameters)
    return f"relprop.{'rules' if inspect.isclass(made) else 'composites'}.{name}({options})"
