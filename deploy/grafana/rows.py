"""What the dashboard shows: its rows, from what a run learns down to how the learner's numbers behave."""

from deploy.grafana.panels import RANGE, Panel, chart, each, figure, rate, series

_LAG = f"max by (run) ({series('policy_version')}) - on (run) group_right () {series('worker_policy_version')}"
_LATENCY = rate("judge_latency_seconds", "le", "_bucket")
_FAILED = rate("judge_scores_failed_total", "judge")
_CANDIDATES = f"scalar({rate('candidates_total')})"
_SKIPPED = rate("groups_skipped_total", "reason")
_GROUPS = f"scalar({rate('groups_total')})"
_WAITING = rate("learner_phase_seconds_total", also='phase=~"waiting_for_.+"')

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        figure("Updates made", "short", "Of those planned, see beside.", series("updates_done")),
        figure("Updates planned", "short", "loop.updates.", series("updates_planned")),
        figure("Policy version", "short", "The learner's.", series("policy_version")),
        figure(
            "Since the last update",
            "s",
            "Much longer than an update takes: see which wait is old.",
            f"time() - {series('last_update_timestamp_seconds')}",
        ),
        figure(
            "Updates with those made again",
            "short",
            "More than were made: a learner or driver was lost, and went on from its checkpoint.",
            f"sum ({series('updates_total')})",
        ),
        figure("Learner ranks", "short", "learner.ranks.", series("learner_ranks")),
    ),
    "Learning": (
        chart(
            "Task reward",
            "short",
            "Noisy from batch to batch; held-out reward decides.",
            (series("task_reward_mean"), "candidates"),
            (series("reference_reward_mean"), "candidate 0"),
            (series("heldout_reward_mean"), "held out"),
        ),
        chart(
            "Spread within groups",
            "short",
            "Advantages are made of it; near 0 there is nothing to learn from.",
            (series("task_reward_within_group_std"), "task reward"),
            (series("acd_reward_within_group_std"), "attention reward"),
        ),
        chart("Attention reward", "short", "Absent where ACD is off.", (series("acd_reward_mean"), "attention reward")),
        chart(
            "Held-out reward",
            "short",
            "Falling while the task reward rises: the judge is being played.",
            (series("heldout_reward_mean"), "all"),
            *each("judge", {"heldout_judge_reward_mean": ""}),
        ),
        chart(
            "Held-out subscores",
            "short",
            "Which part of the judgement moves.",
            (series("heldout_subscore_mean"), "{{judge}} {{subscore}}"),
        ),
        chart(
            "Held-out tasks without a score",
            "short",
            "Anything but 0 makes evaluations hard to compare.",
            (series("heldout_failed_scores"), "failed"),
        ),
        chart(
            "Change outside the mask",
            "short",
            "What region constraints are for: it must not grow with the reward.",
            (series("background_drift_mean"), "training"),
            (series("background_drift_within_group_std"), "spread within groups"),
            (series("heldout_background_drift_mean"), "held out"),
        ),
        chart(
            "Diversity and distance",
            "short",
            "Diversity towards 0 while the distance grows: the policy collapses.",
            (series("diversity_mean"), "between candidates"),
            (series("distance_from_base"), "from the base model"),
        ),
        chart(
            "Norm of the velocity",
            "short",
            "Over the base model's. Some percent above 1 with a rising reward: quality may fall where no judge looks.",
            (series("velocity_norm_ratio"), "{{step}} {{region}}"),
        ),
    ),
    "Throughput": (
        chart(
            "Phases of the learner",
            "percentunit",
            "Share of the time. What is missing to 1 is evaluation, checkpoints, publication.",
            (rate("learner_phase_seconds_total", "phase"), "{{phase}}"),
            stacked=True,
        ),
        chart(
            "Phases of a rollout",
            "s",
            "Seconds a group, mean over the batch.",
            (series("rollout_phase_seconds"), "{{phase}}"),
            stacked=True,
        ),
        chart(
            "Time of an update",
            "s",
            "From record to record, and the ranks' part of it.",
            (series("update_seconds"), "update"),
            (series("learner_update_seconds"), "ranks"),
        ),
        chart(
            "Throughput",
            "short",
            "A second, as they come to the learner.",
            (rate("groups_total"), "groups"),
            (rate("candidates_total"), "candidates"),
        ),
        chart(
            "Devices that wait",
            "percentunit",
            "Share of the time in which a role has nothing to do. In synchronous mode roles wait in turn.",
            (_WAITING, "learner"),
            (f"1 - rate({series('pool_busy_seconds')}[{RANGE}]) / {series('pool_workers')}", "{{role}}"),
        ),
        chart(
            "GPUs, as Ray's nodes see them",
            "percent",
            "Ray's own metric, of all that runs on the nodes; empty without GPUs.",
            ("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}"),
        ),
        chart(
            "Oldest waits",
            "s",
            "`rc-grpo status` names them. `batches` is the learner that waits for groups.",
            (series("wait_age_seconds"), "{{role}}"),
        ),
        chart(
            "Waits against their deadlines",
            "percentunit",
            "At 1 a wait is given up and its worker replaced.",
            (series("wait_deadline_ratio"), "{{role}}"),
        ),
        chart(
            "Groups skipped",
            "percentunit",
            "Share of an update's groups without a usable difference in reward.",
            (series("groups_skipped_share"), "all"),
            (f"{_SKIPPED} / {_GROUPS}", "{{reason}}"),
        ),
        chart(
            "Groups by state",
            "short",
            "Dropped and remade ones are counted since the beginning.",
            (series("ledger_groups"), "{{state}}"),
        ),
    ),
    "Pools": (
        chart(
            "Workers",
            "short",
            "Up below wanted for long: no room in the cluster, or they fail to start.",
            *each(
                "role",
                {
                    "pool_workers": "up",
                    "pool_workers_wanted": "wanted",
                    "pool_workers_starting": "starting",
                    "pool_workers_leaving": "leaving",
                    "pool_workers_resting": "resting",
                },
            ),
        ),
        chart(
            "Workers lost",
            "short",
            "Since the driver began; the log of the driver says why.",
            *each("role", {"pool_workers_lost": "lost", "pool_failed_starts": "failed to start"}),
        ),
        chart(
            "Busy share",
            "percentunit",
            "Of the workers' time in the last update.",
            (series("pool_busy_share"), "{{role}}"),
        ),
        chart("Calls queued", "short", "For a free worker.", (series("queue_calls"), "{{role}}")),
        chart(
            "Age of the queues",
            "s",
            "The oldest call that waits for a worker.",
            (series("queue_age_seconds"), "{{role}}"),
        ),
        chart(
            "Versions behind",
            "short",
            "How far a worker's proved version is behind the learner's.",
            (_LAG, "{{worker}}"),
        ),
        chart(
            "Publication to proof",
            "s",
            "A worker that is busy takes a version before its next task.",
            (series("worker_sync_seconds"), "{{worker}}"),
            (series("sync_seconds_max"), "slowest at the update"),
        ),
        chart(
            "Staleness",
            "short",
            "Versions between a group's rollout and its use.",
            (series("staleness_mean"), "mean"),
            (series("staleness_max"), "oldest"),
            (series("staleness_bound"), "bound"),
        ),
        chart(
            "Canary",
            "short",
            "What the LoRA changes of a fixed velocity: 0 after the first updates means that weights do not arrive.",
            (series("canary_shift_max"), "largest over workers"),
        ),
    ),
    "Judge": (
        chart(
            "Time to score a group",
            "s",
            "All judges of the panel together.",
            *((f"histogram_quantile({share}, {_LATENCY})", f"{share:.0%}") for share in (0.5, 0.95)),
            (f"{rate('judge_latency_seconds', part='_sum')} / {rate('judge_latency_seconds', part='_count')}", "mean"),
        ),
        chart(
            "Scores that failed",
            "percentunit",
            "A failed score is never a reward: the candidate is left out.",
            (f"{rate('task_scores_failed_total')} / {rate('candidates_total')}", "no task reward"),
            (f"{_FAILED} / {_CANDIDATES}", "{{judge}}"),
        ),
        chart("Attempts", "short", "The most that one group's scores took.", (series("judge_attempts_max"), "most")),
        chart(
            "Reward by judge",
            "short",
            "Judges that part ways: one of them is being played.",
            *each("judge", {"judge_reward_mean": "", "judge_reward_within_group_std": "spread within groups"}),
        ),
        chart(
            "Subscores",
            "short",
            "What a reward is made of.",
            (series("judge_subscore_mean"), "{{judge}} {{subscore}}"),
        ),
        chart(
            "Judges' servers",
            "short",
            "vLLM's own, passed on by the reward actors; of every run on the cluster.",
            ("ray_vllm_num_requests_running", "{{worker}} running"),
            ("ray_vllm_num_requests_waiting", "{{worker}} waiting"),
        ),
        chart(
            "Judges' key-value caches",
            "percentunit",
            "Full: requests wait.",
            ("ray_vllm_kv_cache_usage_perc", "{{worker}}"),
        ),
    ),
    "Learner": (
        chart("Gradient norm", "short", "Spikes before a collapse.", (series("gradient_norm"), "norm")),
        chart("Learning rate", "sci", "As the schedule has it.", (series("learning_rate"), "rate")),
        chart(
            "Objective",
            "short",
            "Clipped surrogate, first and later steps on one batch.",
            (series("objective"), "{{step}}"),
        ),
        chart("Divergence", "sci", "From the policy that rolled out.", (series("policy_kl"), "{{step}}")),
        chart("Clipped", "percentunit", "Share of ratios.", (series("clip_fraction"), "{{step}} {{region}}")),
        chart(
            "Log-ratio",
            "short",
            "Largest. On policy the first step's is 0 by construction.",
            (series("log_ratio_max"), "{{step}} {{region}}"),
        ),
        chart(
            "Recomputed steps",
            "sci",
            "0 but for kernels: anything large means that rollout and learner compute different things.",
            (series("recomputed_log_ratio_max"), "log-ratio, {{step}}"),
            (series("recomputed_deviation_max"), "deviation, {{step}}"),
        ),
        chart(
            "Operations a second of a rank",
            "flops",
            "The method's; what is computed again is time, not work.",
            (series("learner_rank_flop_per_second"), "rank"),
        ),
        chart(
            "Model FLOP utilisation",
            "percentunit",
            "Of the peak that is set above: 989 TFLOP/s for H100 and H200 in bfloat16.",
            (f"{series('learner_rank_flop_per_second')} / ($peak_tflops * 1e12)", "while the ranks work"),
        ),
        chart("Idle ranks", "percentunit", "Groups did not come out even.", (series("learner_idle_share"), "idle")),
        chart("Learner lost", "short", "Times since its last checkpoint.", (series("learner_losses"), "lost")),
    ),
}
