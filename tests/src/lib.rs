//! End-to-end scenarios against real parts.
