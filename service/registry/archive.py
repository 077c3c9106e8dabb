"""torch.export archives (.pt2), read without running any code that they may hold.

`torch.export.load` trusts its file: it unpickles weights and constants that ask for it, falls back
to a full unpickler for sample inputs, evaluates symbolic expressions with sympy (which uses
`eval`), and resolves the name of an operation anywhere below `torch`, `torch.os.system` included.
So an archive is looked through first, and only plain tensors, plain arithmetic on sizes and ATen
operations pass.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from service.errors import ModelBroken
from service.inference.graph import GraphNetwork

FILE = "model.pt2"

_TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b|_?save|_?load)\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|torch\.sym_(int|float|max|min|not|sum)"
    r"|math\.(ceil|floor|trunc)"
)
_SYMBOLS = frozenset(
    {
        *("Mod", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod", "IntTrueDiv", "FloatTrueDiv"),
        *("Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Piecewise"),
        *("Add", "Mul", "Pow", "PowByNatural", "Rational", "Identity", "Where", "Equality"),
        *("Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
        *("Integer", "Symbol", "TruncToInt", "FloorToInt", "CeilToInt", "ToFloat", "int_oo", "oo"),
        *("True", "False", "integer", "positive", "nonnegative"),
    }
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_SIZE = re.compile(r"[su]\d+")
_ARITHMETIC = re.compile(r"[\w\s+\-*/%(),<>=&|~']*")

_LARGEST_HEADER_BYTES = 256 * 2**20


def load_archive(path: Path) -> nn.Module:
    """The network of an archive.

    Raises:
        ModelBroken: it is no archive, it holds more than plain tensors and ATen operations, or it
            does not take one input and give one output.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _look_through(archive, path)
        program = torch.export.load(io.BytesIO(content))
    except ModelBroken:
        raise
    except Exception as error:
        raise ModelBroken(
            f"{path} is no torch.export archive that this PyTorch ({torch.__version__}) reads: "
            f"{type(error).__name__}: {error}"
        ) from error
    names = program.graph_signature.user_inputs
    outputs = program.graph_signature.user_outputs
    if len(names) != 1 or len(outputs) != 1:
        raise ModelBroken(
            f"{path} takes {len(names)} inputs and gives {len(outputs)} outputs; expected one "
            "tensor each. Wrap the network before exporting it"
        )
    [entry] = [n for n in program.graph.nodes if n.op == "placeholder" and n.name == names[0]]
    rows = entry.meta["val"].shape[0]
    fixed_rows = rows if isinstance(rows, int) else None
    return GraphNetwork(program.module(check_guards=False), fixed_rows)


def _look_through(archive: zipfile.ZipFile, path: Path) -> None:
    def refuse(what: str) -> ModelBroken:
        return ModelBroken(
            f"{path} is refused: {what}. An archive may hold plain tensors and PyTorch's own "
            "operations only, so that reading it runs no code"
        )

    names = archive.namelist()
    if len(set(names)) != len(names):
        raise refuse("it holds two files of one name")
    if sum(name.endswith(".json") and "/models/" in name for name in names) != 1:
        raise refuse("it does not hold exactly one model")
    for name in names:
        kind = name.partition("/")[2]
        if kind.startswith(("data/weights/", "data/constants/")) and name.endswith(".json"):
            for key, payload in _json(archive, name).get("config", {}).items():
                if payload.get("use_pickle") or "custom_obj" in str(payload.get("path_name")):
                    raise refuse(f"{key} is pickled")
        elif kind.startswith("data/aotinductor"):
            raise refuse(f"{name} is compiled code")
        elif kind.startswith("data/sample_inputs/"):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception:
                raise refuse(f"{name} holds more than tensors") from None
        elif kind.startswith("models/"):
            for key, value in _strings(_json(archive, name)):
                if key == "target" and not _TARGETS.fullmatch(value):
                    raise refuse(f"the operation {value!r} is not one of PyTorch's tensor library")
                if key == "expr_str" and not _is_arithmetic(value):
                    raise refuse(f"the size {value!r} is not plain arithmetic")


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _LARGEST_HEADER_BYTES:
        raise ModelBroken(f"{name} is larger than {_LARGEST_HEADER_BYTES} bytes")
    content: dict[str, Any] = json.loads(archive.read(name))
    return content


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, str):
        yield key, value


def _is_arithmetic(expression: str) -> bool:
    words = _WORD.findall(expression)
    known = all(_SIZE.fullmatch(word) or word in _SYMBOLS for word in words)
    return known and _ARITHMETIC.fullmatch(expression) is not None
