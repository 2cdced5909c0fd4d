"""What every job does: log and outcome, locks, GPUs, processes."""
