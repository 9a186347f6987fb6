"""One step, the loop around it, the model, its checkpoints.

One pair, of a prepared table, on its way through a step of loop.py:

    windows.py          which rows this rank needs of each window, that is step; they arrive, and are the right ones
    window_shares.py    the window's micro-batches, rank by rank, and the counts of all that losses are divided by
    batch.py            a micro-batch as tensors: rows without padding (packed_rows.py) or padded (length_groups.py)
    engine.py           runs them through the model (model.py, liger.py), whose weights it may spread over ranks
    logps.py            what comes out: summed log-probs of its answers, by attention.py, and on GPUs fused_logps.py
    step_statistics.py  some objectives read numbers off the whole step first: a pass before the one with gradients
    step.py             the loss of objectives/, its gradient, one sum over ranks, one update
    metrics.py          the step's line in metrics.jsonl: sums of training pairs, divided at the edge

A held-out pair instead goes through evaluation.py, which has the means of all of them as metrics; held_out_pairs.py
keeps what each came to in a file, for intervals; metric_names.py lists the names that a recipe may ask for.

Alike in name: curriculum/shares.py deals a window out by lengths; window_shares.py calls it for an index and counts. A
checkpoint is complete or not there by checkpoints.py; what lies in it is written and read by checkpoint_files.py.
Before the first step stand checks_before_training.py, vocabulary.py and memory_estimate.py; after the last one
export.py with model_card.py, and run_picture.py. job.py is all that a training depends on, listener.py who hears of it,
and deadline.py ends a training in time.
"""
