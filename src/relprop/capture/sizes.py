"""Symbolic sizes in a file that may come from anybody, such as ``Mul(Integer(2), Symbol('s77'))`` or ``2*s77 + 1``.

torch evaluates them with sympy, which evaluates them with Python. Before that they are read here, by a small grammar
of operators and known functions, and what would take sympy long is refused: a large number, a power, a polynomial with
many terms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SYMBOL = re.compile(r"_?[a-z]+\d{1,6}")
TOKEN = re.compile(r"\s*('[^'\\]*'|[A-Za-z_]\w*|\d+\.?\d*(e[+-]?\d+)?|\*\*|//|[=!<>]=|[-+*/%(),<>=&|~])", re.ASCII)

FUNCTIONS = frozenset(
    "Symbol Integer Float Rational Mul Add Pow Max Min Mod Abs Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan "
    "StrictGreaterThan LessThan GreaterThan And Or Not Xor Piecewise ExprCondPair floor ceiling "
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural "
    "FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt "
    "RoundDecimal ToFloat Identity".split()
)
CONSTANTS = frozenset("true false True False oo int_oo zoo nan".split())
KEYWORDS = frozenset("positive negative nonnegative integer real evaluate precision".split())
NUMBERS = frozenset({"Integer", "Float", "Rational"})
POWERS = frozenset({"**", "Pow", "PowByNatural", "FloatPow", "LShift"})
ARITHMETIC = {"+": "Add", "-": "Add", "*": "Mul", "/": "Mul"}
BINDING = {"|": 1, "&": 2, "==": 3, "!=": 3, "<": 3, ">": 3, "<=": 3, ">=": 3, "+": 4, "-": 4, "*": 5, "/": 5}
BINDING |= {"//": 5, "%": 5, "**": 7}
PREFIX = 6
"""How tightly a sign binds: looser than a power."""

DEPTH, ARGUMENTS, LENGTH = 60, 32, 20_000
"""Limits of an expression: nested so deep, so many arguments of a function, so many characters."""
BITS, EXPONENT, TERMS = 256, 64, 4096
"""Limits of what it stands for: numbers of so many bits, such exponents, polynomials of so many coefficients."""


class NotASize(ValueError):
    """What is wrong with an expression."""


@dataclass(frozen=True)
class _Bound:
    """How large the numbers in a value can be, and the polynomial that it is."""

    bits: int = 1
    degree: int = 0
    of: frozenset[str] = frozenset()
    """The symbols and calls of functions that it is a polynomial of."""
    number: float | None = None
    """Its value, if it is written as a number."""


def symbols_of(expression: str) -> set[str]:
    """The symbols in a symbolic size.

    Raises:
        NotASize: if it is none, or one that would take long to evaluate.
    """
    if len(expression) > LENGTH:
        raise NotASize(f"it is {len(expression)} characters long")
    reader = _Reader(expression)
    reader.read(0, 0)
    if reader.token:
        raise NotASize(f"{reader.token!r} is not expected at character {reader.start}")
    return reader.symbols


class _Reader:
    """A parser by precedence: each method reads one form and leaves the next token."""

    def __init__(self, text: str):
        self.text, self.start, self.end, self.token = text, 0, 0, ""
        self.symbols: set[str] = set()
        self.advance()

    def advance(self) -> str:
        """Go to the next token, which is empty at the end; the one before."""
        before, found = self.token, TOKEN.match(self.text, self.end)
        if found is None and (rest := self.text[self.end :].strip()):
            raise NotASize(f"{rest[:20]!r} is nothing that a size is made of")
        self.token = found.group(1) if found else ""
        self.start, self.end = found.span(1) if found else (len(self.text), len(self.text))
        return before

    def expect(self, token: str) -> None:
        if self.token != token:
            raise NotASize(f"{token!r} is expected at character {self.start}")
        self.advance()

    def read(self, binding: int, depth: int) -> _Bound:
        """An expression of operators that bind at least so tightly."""
        if depth > DEPTH:
            raise NotASize(f"it is nested more than {DEPTH} deep")
        if self.token in ("-", "+", "~"):
            self.advance()
            left = self.read(PREFIX, depth + 1)
            left = left if left.number is None else _checked(_Bound(left.bits, number=-left.number))
        else:
            left = self.atom(depth)
        while BINDING.get(self.token, -1) >= binding:
            start, operator = self.start, self.advance()
            right = self.read(BINDING[operator] + (operator != "**"), depth + 1)
            left = _of_call(ARITHMETIC.get(operator, operator), [left, right], f"{start}{operator}")
        return left

    def atom(self, depth: int) -> _Bound:
        """A number, a symbol, a call, or an expression in parentheses."""
        start, token = self.start, self.advance()
        if token == "(":
            inside = self.read(0, depth + 1)
            self.expect(")")
            return inside
        if token[:1].isdigit():
            return _number(token)
        if token in CONSTANTS:
            return _Bound()
        if self.token == "(" and token in FUNCTIONS:
            return self.call(token, start, depth)
        if not SYMBOL.fullmatch(token):
            raise NotASize(f"{token[:40]!r} is no number, symbol or function of sizes" if token else "it breaks off")
        self.symbols.add(token)
        return _Bound(1, 1, frozenset({token}))

    def call(self, name: str, start: int, depth: int) -> _Bound:
        self.expect("(")
        arguments: list[_Bound] = []
        while self.token != ")":
            if len(arguments) == ARGUMENTS:
                raise NotASize(f"{name} has more than {ARGUMENTS} arguments")
            arguments.append(self.argument(name, depth))
            if self.token != ")":
                self.expect(",")
        self.expect(")")
        if name == "Symbol":
            return arguments[0]
        return _of_call(name, arguments, self.text[start : self.end])

    def argument(self, name: str, depth: int) -> _Bound:
        if self.token[:1] == "'":
            inside = self.advance()[1:-1]
            if name == "Symbol" and SYMBOL.fullmatch(inside):
                self.symbols.add(inside)
                return _Bound(1, 1, frozenset({inside}))
            if name == "Float" and re.fullmatch(r"-?\d+\.?\d*(e[+-]?\d+)?", inside):
                return _number(inside)
            raise NotASize(f"{inside[:40]!r} is no symbol")
        word = self.token if self.token in KEYWORDS else ""
        if word:
            self.advance()
            self.expect("=")
        value = self.read(0, depth + 1)
        if word == "precision" and not 1 <= (value.number or 0) <= 1000:
            raise NotASize("it holds a number of more than 1000 digits")
        return value


def _number(text: str) -> _Bound:
    if len(text) > 100:
        raise NotASize(f"it holds a number of {len(text)} digits")
    value = float(text)
    if not abs(value) < 2.0**BITS:
        raise NotASize(f"it holds the number {text}")
    return _Bound(max(1, len(str(int(abs(value)))) * 4), number=value)


def _of_call(name: str, arguments: list[_Bound], text: str) -> _Bound:
    """What a function makes of its arguments."""
    bits = [a.bits for a in arguments]
    if name in NUMBERS:
        number = arguments[0].number if len(arguments) == 1 or name == "Float" else 1.0
        return _checked(_Bound(max(bits, default=1), number=number))
    if name in POWERS:
        exponent = arguments[-1].number
        if len(arguments) != 2 or exponent is None or not abs(exponent) <= EXPONENT:
            raise NotASize(f"it holds a power whose exponent is no number up to {EXPONENT}")
        times = max(1, int(abs(exponent) + 1))
        base = arguments[0]
        return _checked(_Bound(base.bits * times + times, base.degree * times, base.of))
    if name in ("Add", "Mul"):
        joined = frozenset().union(*(a.of for a in arguments))
        degrees = [a.degree for a in arguments]
        if name == "Add":
            return _checked(_Bound(max(bits, default=1) + len(bits), max(degrees, default=0), joined))
        return _checked(_Bound(sum(bits), sum(degrees), joined))
    if any(a.of for a in arguments):  # it stays as it is, a new variable
        return _Bound(1, 1, frozenset({text}))
    return _checked(_Bound(max(1, sum(bits))))


def _checked(value: _Bound) -> _Bound:
    if value.bits > BITS:
        raise NotASize(f"it holds a number that may have more than {BITS} bits")
    if (value.degree + 1) ** len(value.of) > TERMS:
        raise NotASize(f"it is a polynomial of more than {TERMS} coefficients")
    return value
