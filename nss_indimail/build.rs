//! Linker arguments of the module: its name, that it stays loaded, and that nothing is left undefined.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for arg in ["-soname,libnss_indimail.so.2", "-z,nodelete", "-z,defs"] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{arg}");
    }
}
