"""The control loop: region-constrained GRPO as the paper states it, a verb a line.

With ``loop.max_staleness: 0`` this is the sequential algorithm. With more, the collector's rollouts and scorings go on
while ``learner.update`` runs; the text stays the same.
"""

from deploy.run import Run


async def train(run: Run) -> None:
    """Train a policy from version 0 to the end of the plan."""
    async with run.pools() as (rollouts, judges, learner):
        await rollouts.adopt(*await learner.publish())
        await run.evaluate(rollouts, judges, learner.version)
        async for batch in run.collector.batches(rollouts, judges, learner, run.updates):
            report = await learner.update(batch)
            await rollouts.adopt(*await learner.publish())
            await run.record(batch, report, rollouts, judges, learner)
        await run.evaluate(rollouts, judges, learner.version)
        await run.finish(learner)
