//! The command line's entry point: everything is in the library.

fn main() {}
