//! Links the unwinder of libgcc into the executables instead of loading libgcc_s.so at each start.
//!
//! A mail passes through four short-lived programs. Loading and relocating one more library, whose
//! constructor asks the processor what it can do (a trap under a hypervisor), was a tenth of what
//! starting one costs. `-static-libgcc` is not enough: the standard library names `gcc_s`
//! itself, so the linker finds a script of that name that leads to the archives.

use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ENV")? == "gnu" {
        let dir = PathBuf::from(env::var("OUT_DIR")?);
        fs::write(dir.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
        println!("cargo:rustc-link-search=native={}", dir.display());
    }
    Ok(())
}
