//! The lab as its users meet it: the program itself, its exit codes, its messages and its archives.

mod archive;
mod bad_input;
mod invariants;
mod lab;
mod study;
