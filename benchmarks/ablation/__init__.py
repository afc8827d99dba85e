"""The method's parts one by one on the pocket editor, under one budget, over several seeds.

    python -m benchmarks.ablation train --out DIR [--processes 16] [--set editor.device=cuda]
    python -m benchmarks.ablation explore --out DIR         # the untrained policy alone
    python -m benchmarks.ablation summarise DIR             # -> results/ablation.json, docs/ablation/

And the long runs, for GPUs: the rivals' algorithms as arms, and worlds that differ in what the base model damages, what
the judge sees and how sure it is:

    python -m benchmarks.ablation damage --out DIR --set editor.device=cuda
    python -m benchmarks.ablation train-long --out DIR --processes 45 --set editor.device=cuda
    python -m benchmarks.ablation summarise-long DIR        # -> results/ablation_gpu.json, docs/ablation/

Training goes on where it was stopped: a run that has its file is not repeated.
What differs between the arms is in ``plan.yaml`` and ``plan_gpu.yaml``; the equations are those of the system
(`benchmarks.sequential`).
"""
