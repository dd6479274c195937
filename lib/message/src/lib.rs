//! RFC 5322 header fields, dates, addresses, byte-exact.
