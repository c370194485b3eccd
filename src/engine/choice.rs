//! Which engine a data directory holds, and opening the right one.
