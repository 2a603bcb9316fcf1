//! The lab as its users meet it: the program itself, its exit codes, its messages and its archives.

#![expect(clippy::disallowed_methods, reason = "a test stands where the user stands: on real sockets")]

mod archive;
mod bad_input;
mod dashboard;
mod deployments;
mod exercise;
mod fail;
mod faults;
mod heal;
mod invariants;
mod lab;
mod load;
mod lost;
mod page;
mod proxy;
mod stream;
mod stream_cli;
mod study;
