//! The executable `nssd`.

program::main!("nssd", [nssd::PROGRAM]);
