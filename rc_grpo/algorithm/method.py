"""The solvers by name, where also a configuration can name them: nothing is imported here."""

from typing import Literal

Method = Literal["euler", "heun", "dpmpp_2m"]
"""``euler`` costs one evaluation a step and is first order, ``heun`` two and second, ``dpmpp_2m`` one and second."""
