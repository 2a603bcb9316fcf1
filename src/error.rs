//! Errors with an exit code: wrong input is 2, surroundings that lack or refuse something are 4.
//!
//! Everything else that goes wrong is a defect or a trial's own failure, and is told apart where it is caught.

use std::fmt;

/// Wrong, missing or damaged input: a flag, a file, an archive. Exit code 2.
#[derive(Debug)]
pub struct Input(pub String);

/// The surroundings lack or refuse something: a port, a folder, an engine, a database. Exit code 4.
#[derive(Debug)]
pub struct Surroundings(pub String);

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Input {}
impl std::error::Error for Surroundings {}

/// An error that ends with exit code 2.
pub fn input(message: impl Into<String>) -> anyhow::Error {
    Input(message.into()).into()
}

/// An error that ends with exit code 4.
pub fn surroundings(message: impl Into<String>) -> anyhow::Error {
    Surroundings(message.into()).into()
}

/// The exit code of an error that reached the top: 4 unless it is known to be input.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Input>()) { 2 } else { 4 }
}
