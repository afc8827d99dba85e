"""Draws the house from the product's imports: ``make map`` writes docs/diagrams/house.svg.

A box is a room, with its number of modules; a line goes down from a room to one that it imports, the thicker the more
often. The rows are in the order of the import contracts in pyproject.toml.
"""

from collections import Counter
from html import escape
from pathlib import Path

import grimp

OUT = Path(__file__).parents[1] / "diagrams" / "house.svg"
PACKAGES = ("rc_grpo", "rollout_workers", "reward_service", "learner", "deploy")
ROWS: tuple[tuple[str, ...], ...] = (
    ("deploy.cli", "deploy.train", "deploy.loop", "deploy.run"),
    ("deploy.watch", "deploy.checking"),
    ("deploy.evaluating", "deploy.looking", "deploy.report", "deploy.study", "deploy.grafana"),
    ("deploy.errors", "deploy.observability", "deploy.watching", "deploy.batches"),
    ("deploy.records", "deploy.tracking", "deploy.planning"),
    ("deploy.cluster", "deploy.configs", "deploy.stopping", "deploy.web"),
    ("rollout_workers", "reward_service", "learner"),
    ("rc_grpo.pocket", "rc_grpo.editor.families", "rc_grpo.evaluation"),
    ("rc_grpo.data", "rc_grpo.editor"),
    ("rc_grpo", "rc_grpo.config", "rc_grpo.algorithm"),
)
ELSE = "messages, seeds, pool, …"
"""What lies on the ground floor outside its rooms."""
FLOORS = {"deploy.cli": "the roof", "learner": "three services", "rc_grpo.pocket": "the ground floor"}
"""By a room of the topmost row of each."""
WIDTH, BOX, HIGH, STEP, LEFT = 1080, 180, 44, 84, 90


def room_of(module: str) -> str:
    """Return the room of a module: the longest of the rows' names that it lies in."""
    rooms = [room for row in ROWS for room in row if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default="")


def draw() -> str:
    """Return the drawing."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    modules = Counter(room_of(module) for module in graph.modules)
    lines = Counter(
        (room_of(module), room_of(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    )
    at = {
        room: (LEFT + (WIDTH - LEFT) * (index + 0.5) / len(row), 30 + level * STEP)
        for level, row in enumerate(ROWS)
        for index, room in enumerate(row)
    }
    height = 30 + len(ROWS) * STEP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img" '
        'aria-label="The rooms of the house, and which imports which">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for room, name in FLOORS.items():
        y = at[room][1]
        parts.append(f'<text x="10" y="{y + 27}" font-size="12" fill="#666">{name}</text>')
        if room not in ROWS[0]:
            parts.append(
                f'<line x1="0" x2="{WIDTH}" y1="{y - 24}" y2="{y - 24}" stroke="#ccc" stroke-dasharray="4 4"/>'
            )
    for (upper, lower), count in sorted(lines.items()):
        if upper and lower and upper != lower:
            (x1, y1), (x2, y2) = at[upper], at[lower]
            start, end = (y1 + HIGH, y2) if y2 > y1 else (y1 + HIGH / 2, y2 + HIGH / 2)
            width = min(4.0, 0.6 + 0.25 * count)
            parts.append(
                f'<path d="M{x1:.0f} {start:.0f} C{x1:.0f} {start + 26:.0f} {x2:.0f} {end - 26:.0f} {x2:.0f} {end:.0f}"'
                f' fill="none" stroke="#3b6ea5" stroke-opacity="0.28" stroke-width="{width:.1f}"/>'
            )
    for room, (x, y) in at.items():
        name = room.removeprefix("deploy.").removeprefix("rc_grpo.") if room != "rc_grpo" else ELSE
        fill = "#eef4fb" if room.startswith("deploy") else "#fdf3e3" if "rc_grpo" not in room else "#eef7ee"
        count = f"{modules[room]} module{'s' if modules[room] > 1 else ''}"
        parts += [
            f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HIGH}" rx="6" fill="{fill}" stroke="#456"/>',
            f'<text x="{x:.0f}" y="{y + 19}" font-size="14" text-anchor="middle" fill="#123">{escape(name)}</text>',
            f'<text x="{x:.0f}" y="{y + 35}" font-size="11" text-anchor="middle" fill="#567">{count}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")
    print(OUT)
