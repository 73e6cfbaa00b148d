# SPDX-License-Identifier: Apache-2.0
"""Names, docstrings and rules of the functions that build networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nets.embedding import DROPOUT_OUTPUTS, OUTPUTS, output_problems

Problems = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]

_PARAMETERS = {
    "image_size": "(height, width) of the images in pixels.",
    "width": "Factor on the number of channels of every layer; the embedding size stays the same.",
    "embedding_size": "Number of dimensions of the embedding.",
    "output": "Last layers.\n        "
    + "\n        ".join(f"{output}: {layers}." for output, layers in OUTPUTS.items()),
    "dropout": "Fraction of the values of the last feature map that training sets to 0, for the\n"
    f"        outputs {', '.join(DROPOUT_OUTPUTS)}.",
}


def describe_builder(
    build: Callable[..., Any],
    name: str,
    text: str,
    *,
    parameters: Mapping[str, str] | None = None,
    notes: str,
    problems: Sequence[Problems] = (),
) -> None:
    """Set the name, the docstring and the setting checks of a function that builds a network.

    Parameters
    ----------
    build
        The function; its keyword-only arguments are the settings of the network.
    name
        Name of the network.
    text
        First line of the docstring.
    parameters
        Descriptions of the arguments that only this network has.
    notes
        Source of the network: paper and structure.
    problems
        Checks: functions that yield (setting, message) for each setting that another setting
        excludes.  The check `nets.embedding.output_problems` is always included.
    """
    described = "\n".join(
        f"    {key}\n        {value}"
        for key, value in {**_PARAMETERS, **(parameters or {})}.items()
    )
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""{text}

    Parameters
    ----------
{described}

    Raises
    ------
    ValueError
        If the images are too small, or if the last layer is too large for MXNet.

    Notes
    -----
    {notes}
    """
    every = (output_problems, *problems)
    build.__dict__["problems"] = lambda options: (pair for f in every for pair in f(options))


def length_problems(key: str, length: int, meaning: str) -> Problems:
    """Return a check that yields (key, message) if the list ``key`` is not of length ``length``.

    ``meaning`` says in the message what the numbers of the list stand for.
    """

    def problems(options: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if len(options[key]) != length:
            yield (
                key,
                f"must have {length} numbers, {meaning}, got {options[key]!r}; add or remove "
                "numbers",
            )

    return problems
