"""One line out of an error of the command line: the key, the cause, what is allowed and what came."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

# lines that only say "the other branches of this union did not fit either"
_NOISE = (
    "Expected a path but",
    "Does not validate against",
    "Not a valid subclass of",
    "a class path (",
    "a dict with",
)
_KEY = re.compile(r'Parser key "([^"]+)":?')
_OWNER = re.compile(r"Problem with given class_path '([^']+)':?")
_VALUE = re.compile(r"(?:Given value:|Got value:)\s*(.*)")
_CLASS = re.compile(r"class_path='([^']+)'")
_EXPECTED = re.compile(r"Expected an? (?!dot import path|path but)(.+?)(?:\. Got value:.*)?$")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_OPTION = re.compile(r"does not accept option '([^']+)'|Option '([^']+)' is not accepted|arguments: --([^\s=]+)")
_UNNAMED = ("LightningModule", "LightningDataModule")  # the base classes, which take anything
_LONGEST = 500
_MANY = 12  # more names than this do not help

Names = Callable[[str], Sequence[str]]


def one_line(message: str, args: Sequence[str], classes: Names, arguments: Names) -> str:
    """Return an error of the parser, or of a class that it creates, as one line.

    Args:
        message: The full text, usually a tree of lines: one branch for each type that was tried.
        args: The command line, to name an option the way the user typed it.
        classes: Returns the class names that fit a key such as "model".
        arguments: Returns the arguments of a class, given its path; those of the command for "".

    Returns:
        One line; the text itself with its line breaks removed where it has no known form.
    """
    keys = list(_KEY.finditer(message))
    key = keys[-1][1] if keys else ""
    owners = _OWNER.findall(message[: keys[-1].start()] if len(keys) > 1 else message)
    owner = owners[-1] if owners else ""
    if _NO_OPTION.search(message):
        text = _no_option(message, owner, arguments)
        where = _as_typed(key, args) if keys else ""
    elif len(keys) > 1:  # the argument of a class inside a list or union of classes: its own part says it all
        text = _cause(_first_part(message[keys[-1].start() :]), "", key, classes)
        where = _as_typed(key, args, f"`{key}` of {owner}" if owner else key)
    else:
        value = _value(message)
        made = sorted(set(_CLASS.findall(value)))
        text = _cause(message, value, key, classes)
        where = _as_typed(key, args) if keys else made[0] if len(made) == 1 else ""
    text = " ".join(f"{where}: {text}".split() if where else text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _cause(message: str, value: str, key: str, classes: Names) -> str:
    """Return what is wrong with one value."""
    value = value or _value(message)
    branches = [branch for branch in _branches(message) if not branch.startswith(_NOISE)]
    expected = [match[1] for match in map(_EXPECTED.match, branches) if match]
    reasons = [_reason(branch, key, classes) for branch in branches if not _EXPECTED.match(branch)]
    number = any(text in ("<class 'int'>", "<class 'float'>") for text in expected)  # then no class was meant
    if reasons and not number:
        return "; ".join(dict.fromkeys(reasons))
    if expected:
        return f"expected {_allowed(expected)}, but got {value!r}."
    return message


def _branches(message: str) -> list[str]:
    """Return the items of the tree, each with the lines that continue it; the whole body when it has none."""
    items: list[str] = []
    body = re.split(r"\n\s*Given value type:", _KEY.sub("", message))[0].strip()
    for line in body.splitlines():
        start = re.match(r"\s*- (.*)", line)
        if start:
            items.append(start[1])
        elif items and not line.strip().startswith(("Subtypes:", "Errors:", "Subclass types expect")):
            items[-1] += " " + line.strip()
    return items or [body]


def _first_part(message: str) -> str:
    """Return a message up to the first value that it reports."""
    end = _VALUE.search(message)
    return message[: end.end()] if end else message


def _value(message: str) -> str:
    found = _VALUE.findall(message)
    return found[-1].strip() if found else ""


def _reason(branch: str, key: str, classes: Names) -> str:
    match = _NO_CLASS.match(branch)
    if match is None:
        return _OWNER.sub(r"\1:", branch)
    hint = _nearest(match[1], classes(key), "Known short names")
    return f"no class is called {match[1]!r}. Give its full path, such as my_module.{match[1]}.{hint}"


def _no_option(message: str, owner: str, arguments: Names) -> str:
    match = _NO_OPTION.search(message)
    name = next((group for group in match.groups() if group), "") if match else ""
    if owner.rpartition(".")[2] in _UNNAMED:  # `model:` or `data:` of a main with fixed classes, or a later --model
        return f"{name!r} is set before the class is named. Give the class before that --config, or a class_path in it."
    if owner:
        return f"{owner} has no argument {name!r}.{_nearest(name, arguments(owner), 'It takes')}"
    return f"there is no option {name!r}.{_nearest(name, arguments(''), '`--help` explains them all')}"


def _nearest(name: str, names: Sequence[str], all_of_them: str) -> str:
    near = difflib.get_close_matches(name, names, 2, 0.75)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    if not names:
        return ""
    return f" {all_of_them}: {', '.join(names[:_MANY])}{', ...' if len(names) > _MANY else '.'}"


def _allowed(expected: list[str]) -> str:
    """Return type names as a reader knows them: "int or null"."""
    names: list[str] = []
    for text in expected:
        literal = re.match(r"(?:typing\.)?Literal\[(.*)\]$", text)
        plain = re.match(r"<class '(?:\w+\.)*(\w+)'>$", text)
        if literal:
            names += [word.strip("'\"") for word in literal[1].split(", ")]
        else:
            names.append("null" if plain and plain[1] == "NoneType" else plain[1] if plain else text)
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _as_typed(key: str, args: Sequence[str], otherwise: str = "") -> str:
    """Return the option that set a key: `--model.width` for the key `width` inside the model."""
    names = [token.partition("=")[0] for token in args if token.startswith("--")]
    return next((name for name in names if name[2:] == key or name.endswith(f".{key}")), otherwise or key)
