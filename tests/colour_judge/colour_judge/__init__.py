"""Colour: a toy judge that likes the edited region to have one colour. This is its configuration."""

from typing import Annotated, Any

from pydantic import Field

from rc_grpo.config import JudgePlugin

Level = Annotated[int, Field(ge=0, le=255)]


class ColourConfig(JudgePlugin):
    """How near the region's mean colour is to a colour."""

    colour: tuple[Level, Level, Level] = Field(description="red, green, blue; 0..255")
    half_at: float = Field(64.0, gt=0, description="distance in levels at which the reward is a half")

    def make(self) -> Any:
        """Return the judge."""
        from colour_judge.judge import ColourJudge

        return ColourJudge(self.colour, self.half_at)

    def check(self) -> None:
        """Refuse what can be seen to go wrong before anything is started."""
        if len(set(self.colour)) == 1:
            raise ValueError(f"colour {self.colour} is grey, which blurred edits are anyway; name another")
