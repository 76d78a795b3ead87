//! One-sided memory access between nodes. Knows nothing of segments.
