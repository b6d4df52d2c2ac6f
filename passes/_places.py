"""Places in the model's own code: file:line, for nodes and errors."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from types import CodeType

import torch

from naflow_fx.errors import first_line

_TORCH = str(Path(torch.__file__).parent) + os.sep
_PACKAGE = str(Path(__file__).parent.parent) + os.sep  # naflow_fx, where passes/ is linked from
_MODELS = _PACKAGE + "models" + os.sep


def calling_line(stop: CodeType) -> str:
    """file:line of the innermost line of the model's own code that is being traced, or "".

    Frames inside that of `stop` are looked at.  torch.fx's own `record_stack_traces` formats every
    frame of every node, and imports torch.export and Inductor to leave some out.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not stop:
        if _is_model_code(frame.f_code.co_filename):
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def last_frame(stack: str) -> str:
    """file:line of the innermost line of the model's own code."""
    frames = re.findall(r'File "(.+?)", line (\d+)', stack)
    own = [frame for frame in frames if _is_model_code(frame[0])]
    return ":".join(own[-1]).rsplit("/", 1)[-1] if own else ""


def _is_model_code(file: str) -> bool:
    """Whether a file is neither torch's nor the compiler's."""
    return file.startswith(_MODELS) or not file.startswith((_TORCH, _PACKAGE))


def _where_in_model(error: BaseException) -> str:
    """file:line of the model's code where tracing stopped."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if _is_model_code(frame[0])]
    file, line = (own or frames)[-1]
    return f"{file}:{line}"


def reason(error: Exception) -> str:
    """One line: the line of the model's code, and what was wrong there."""
    return f"{_where_in_model(error)}: {first_line(error).split('. ')[0]}"
