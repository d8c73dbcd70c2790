"""Networks only: trainable, batched, without thresholds."""
