"""The control loop: region-constrained GRPO as the paper states it, a verb a line.

With ``loop.max_staleness: 0`` this is the sequential algorithm. With more, the collector's rollouts and scorings go on
while ``learner.update`` runs; the text stays the same. A rank that dies ends the inner block, and the next turn of the
outer one starts from the last checkpoint, which is also how a run is resumed.
"""

from deploy.run import Run


async def train(run: Run) -> None:
    """Train a policy from version 0, or from where the run was left, to the end of the plan."""
    async with run.pools() as (rollouts, judges, learner):
        while not run.finished:
            async with run.from_last_checkpoint(learner):
                await rollouts.adopt(*await learner.publish())
                await run.evaluate(rollouts, judges, learner.version)
                async for batch in run.experience.batches(rollouts, judges, learner, run.updates_left):
                    report = await learner.update(batch)
                    await rollouts.adopt(*await learner.publish())
                    await run.record(batch, report, rollouts, judges, learner)
                await run.finish(rollouts, judges, learner)
