"""What the YAML reader finds wrong with a text, in words for people who write it by hand."""

from __future__ import annotations

import yaml

_NOT_CLOSED = {  # what the reader says -> what it means where the thing began that it could not finish
    "could not find expected ':'": "a key without ': ' and a value",
    "found unexpected end of stream": "a quote is not closed",
    "expected ',' or ']'": "a list in [brackets] is not closed, or a comma is missing in it",
    "expected ',' or '}'": "settings in {braces} are not closed, or a comma is missing in them",
}
_WRONG = {  # the same, where it was found
    "mapping values are not allowed here": "a second ': ' on the line, or a line that is indented too deeply; a text "
    "that holds ': ' stands in quotes",
    "found character '\\t'": "a tab: indent with spaces",
    "found character": "a text that begins with a sign stands in quotes",
    "expected <block end>": "the line is not indented like its neighbours, or the one before it is not finished",
    "expected the node content, but found '<stream end>'": "the text ends in the middle of it",
    "expected the node content": "a value is missing before this",
    "found undefined alias": "a text that begins with * stands in quotes",
}
_SHOWN = 60  # characters of the line


def what_is_no_yaml(error: yaml.YAMLError, text: str) -> tuple[str, str]:
    """The position, as `line 3, column 5` (nothing where nobody knows), and what is wrong with that line."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return "", " ".join(str(error).split())
    problem = error.problem or "it cannot be read"
    said = next((words for begins, words in _WRONG.items() if problem.startswith(begins)), None)
    if said is None:
        said = next((words for begins, words in _NOT_CLOSED.items() if problem.startswith(begins)), problem)
        mark = error.context_mark or mark
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else "the end"
    shown = f"{line[:_SHOWN]}..." if len(line) > _SHOWN else line
    return f"line {mark.line + 1}, column {mark.column + 1}", f"{said}: {shown}"
