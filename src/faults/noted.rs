//! An intent that is marked done by dropping it.

use std::sync::Arc;

use super::journal::{Intent, Journal, Token};

/// Something that is written down for as long as this lives.
#[must_use = "dropped, it says that the thing is undone"]
pub struct Noted {
    journal: Arc<Journal>,
    token: Option<Token>,
}

impl Noted {
    /// Writes something down; when this returns, it is on disk.
    ///
    /// # Errors
    /// As [`Journal::intend`].
    pub fn new(journal: &Arc<Journal>, intent: Intent) -> anyhow::Result<Self> {
        let token = Some(journal.intend(intent)?);
        Ok(Self { journal: journal.clone(), token })
    }

    /// Leaves it written down: it could not be undone.
    pub fn keep(mut self) {
        self.token = None;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.journal.done(token);
        }
    }
}
