//! Account model, stores, password schemes, domains.
