//! Embedded migrations are files: a change of one must build the crate again.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
