"""A plan of GPUs as a table."""

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from deploy.planning.capacity import Plan


def draw_plan(plan: Plan, config: str) -> RenderableType:
    """Return the split, what it costs, and the command that uses it."""
    table = Table("pool", "GPUs", "seconds an update", "busy", "GiB a GPU", title=f"{plan.gpus} x {plan.gpu_type}")
    table.title_justify = "left"
    for pool in plan.pools:
        memory = "" if pool.memory_gib is None else f"{pool.memory_gib:.0f} of {plan.memory_gib:.0f}"
        busy = pool.seconds / plan.seconds
        table.add_row(pool.name, str(pool.gpus), f"{pool.seconds:,.1f}", f"{busy:.0%}", memory)
    faster = "" if plan.faster is None else "the fastest split of {} is {}: {:,.0f} s".format(plan.gpus, *plan.faster)
    how = "pools work at the same time" if plan.overlapped else "the learner waits for the groups, then they for it"
    lines = [
        f"about {plan.seconds:,.0f} s an update, {plan.candidates_s:.1f} candidates a second; {how}",
        *(f"{', '.join(names)} take turns on the same GPUs" for names in plan.shared),
        *([faster] if faster else []),
        plan.hours.in_words,
        *(f"[yellow]note[/yellow] {escape(warning)}" for warning in plan.warnings),
        f"[dim]from {escape(plan.source)}[/dim]",
        "rc-grpo train " + escape(config) + "".join(f" --set {override}" for override in plan.overrides),
    ]
    return Group(table, *lines)


def print_plan(console: Console, plan: Plan, config: str) -> None:
    """Print a plan."""
    console.print(draw_plan(plan, config), soft_wrap=True, highlight=False)
