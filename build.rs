//! Strips the release binary. `strip` in the profile does not: cargo strips nothing of a package that has settings of its own
//! there, and `meshctl` is built to be small.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo:rustc-link-arg-bins=-s");
    }
}
