//! The executable `tcprules-sql`.

#![forbid(unsafe_code)]

program::main!("tcprules-sql", [ucspi_tcp::sql_rules::PROGRAM]);
