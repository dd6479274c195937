//! TAI64N time labels.
